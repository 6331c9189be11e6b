"""Thousands of requests made from the OpenAPI document: the server answers only as it says."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    allow_header_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
LONGEST = 0.001


@schemathesis.serializer("application/msgpack")
def packed(_: Any, value: Any) -> bytes:
    """Write a generated value; bytes come wrapped."""
    try:
        return msgspec.msgpack.encode(value, enc_hook=lambda other: other.data)
    except OverflowError:
        return b"\xcf"  # it has no form for such integers; a truncated one is as wrong


def hasten(case: Case) -> None:
    """Keep a generated request from asking for an hour's sleep."""
    if isinstance(case.body, dict):
        delay = case.body.get("delay")
        if isinstance(delay, int | float) and delay > LONGEST:
            case.body["delay"] = LONGEST


def fuzz(operation: Any, mode: GenerationMode, cases: int) -> Counter[int]:
    """Send ``cases`` requests to one operation; return how many had which status."""
    statuses: Counter[int] = Counter()

    @seed(20)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def each(case: Case) -> None:
        hasten(case)
        answer = case.call(timeout=10)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    each()
    return statuses


def may_be_wrong(operation: Any) -> bool:
    return bool(operation.body or operation.query or operation.path_parameters)


def fuzz_all(server: live.Live, cases: int) -> Counter[int]:
    """Send ``cases`` requests, most of them to the models; then look whether it still works."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    models = [each for each in operations if each.path.endswith("/predict")]
    others = [each for each in operations if each not in models]
    statuses: Counter[int] = Counter()
    for each in others:
        for mode in MODES if may_be_wrong(each) else MODES[:1]:
            statuses += fuzz(each, mode, 5)
    share = -(-(cases - statuses.total()) // (len(models) * len(MODES)))
    for each in models:
        for mode in MODES:
            statuses += fuzz(each, mode, share)
    with server.client() as client:
        answer = client.post("/v1/models/echo_tiny/predict", json={"x": 1})
        assert answer.json() == 1.0
    failures = [r for r in map(msgspec.json.decode, server.logged) if r["level"] == "error"]
    assert not failures
    return statuses


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder: Path = tmp_path_factory.mktemp("schemathesis")
    with live.live(folder, "--plugins", ",".join(live.ECHOES)) as running:
        yield running


@pytest.mark.timeout(60)
def test_500_generated_requests_are_answered_as_documented(server: live.Live) -> None:
    statuses = fuzz_all(server, 500)
    assert statuses.total() >= 500
    assert statuses[200] > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_5000_generated_requests_are_answered_as_documented(server: live.Live) -> None:
    statuses = fuzz_all(server, 5000)
    print(f"statuses of {statuses.total()} requests: {dict(statuses)}")
    assert statuses.total() >= 5000
