"""Models of our own behind linker_atom's conventions: its health route, errors and request log."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import httpx2
import live
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from test_health import Server

from atomserve import Text, Wrapper, testing
from atomserve.errors import BadRequest, Fault, Invalid, all_errors
from atomserve.settings import LinkerSettings
from atomserve.surfaces.linker import Conventions
from atomserve.surfaces.linker_errors import envelope, tell
from atomserve.surfaces.linker_parameters import MOST_READ, shown_body, shown_query

SECRET = "a-secret-of-the-client"
ALARM = "a secret of /etc/shadow"

MODEL = f'''
from atomserve import BadRequest, Blob, Text, Wrapper


class Shout(Wrapper):
    """Say it louder."""

    def predict(self, text: Text, times: int = 1) -> str:
        if text == "refuse":
            raise BadRequest("not this one")
        if text == "fail":
            raise RuntimeError("{ALARM}")
        return text.upper() * times


class Size(Wrapper):
    """Say how long it is."""

    def predict(self, data: Blob) -> int:
        return len(data)
'''
TOML = """
prefix = "/api"
executor = "thread"
[limits]
body = "1MiB"
[linker]
conventions = true
profiling_on_request = true
"""
PREDICT = "/api/v1/models/shout/predict"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("conventions")
    (folder / "model.py").write_text(MODEL)
    with live.live(folder, "--plugins", "./model.py:Shout,./model.py:Size", toml=TOML) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: live.Live) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


def told(server: live.Live, event: str, answer: httpx2.Response) -> dict[str, Any]:
    """Return the record of one request, which the server may still be about to write."""
    return server.await_record(event, request_id=answer.headers["x-request-id"])


def test_the_health_route_says_alive(client: httpx2.Client) -> None:
    answer = client.get("/api/v1/health/ping")
    assert (answer.status_code, answer.json()) == (200, {"is_alive": True})
    assert client.get("/readyz").status_code == 200


def test_an_answer_is_what_it_is_without_the_conventions(client: httpx2.Client) -> None:
    answer = client.post(PREDICT, json={"text": "tea", "times": 2})
    assert (answer.status_code, answer.json()) == (200, "TEATEA")


@pytest.mark.parametrize(
    ("path", "status", "text", "code"),
    [
        ("/api/nowhere", 404, "NOT FOUND", "not_found"),
        ("/api/v1/models/nobody", 404, "NOT FOUND", "model_not_found"),
        (PREDICT, 405, f"{PREDICT} takes POST only", "method_not_allowed"),
    ],
)
def test_errors_come_in_the_envelope(
    client: httpx2.Client, path: str, status: int, text: str, code: str
) -> None:
    answer = client.get(path)
    found = answer.json()
    assert answer.status_code == found["code"] == status
    assert answer.headers["content-type"] == "application/json"
    assert (found["msg"], found["data"]["error"]) == (text, code)


def test_an_error_before_any_endpoint_comes_in_the_envelope_too(client: httpx2.Client) -> None:
    answer = client.post("/api/v1/models/size/predict", content=bytes(2 * 1024 * 1024))
    found = answer.json()
    assert answer.status_code == found["code"] == 413
    assert found["data"]["error"] == "too_large"


def test_what_does_not_fit_is_listed(client: httpx2.Client) -> None:
    answer = client.post(PREDICT, json={"text": "tea", "times": "many"})
    found = answer.json()
    assert (answer.status_code, found["code"], found["msg"]) == (422, 422, "Request Entity Error")
    (fault,) = found["data"]
    assert fault["loc"] == ["body", "times"]
    assert "int" in fault["msg"]


def test_a_refusal_is_an_external_error_with_its_reason(client: httpx2.Client) -> None:
    answer = client.post(PREDICT, json={"text": "refuse"})
    found = answer.json()
    assert (answer.status_code, found["msg"]) == (400, "External Invoke Error")
    assert found["data"]["detail"] == "not this one"


def test_a_bug_tells_its_trace_id_alone(client: httpx2.Client, server: live.Live) -> None:
    answer = client.post(PREDICT, json={"text": "fail"})
    found = answer.json()
    assert (answer.status_code, found["msg"]) == (500, "Internal Server Error")
    assert ALARM not in answer.text
    trace_id = found["data"]["trace_id"]
    line = server.await_line(lambda line: trace_id in line)
    assert ALARM in line


def test_a_request_is_logged_with_its_secrets_masked(
    client: httpx2.Client, server: live.Live
) -> None:
    fields = {"Authorization": SECRET, "Cookie": SECRET, "X-Api-Key": SECRET, "X-Plain": "shown"}
    body = {"text": "x" * 1000, "times": 1}
    answer = client.post(PREDICT, json=body, headers=fields)
    assert answer.status_code == 200
    headers = told(server, "linker.headers", answer)
    assert "shown" in headers["headers"]
    said = told(server, "linker.parameters", answer)["json"]
    assert "x" * 200 in said
    assert "x" * 201 not in said
    assert told(server, "linker.duration", answer)["duration_ms"] > 0
    assert not any(SECRET in line for line in server.logged)


def test_a_request_may_ask_for_its_profile(client: httpx2.Client, server: live.Live) -> None:
    answer = client.post(f"{PREDICT}?PROFILING=1", json={"text": "tea"})
    assert (answer.status_code, answer.json()) == (200, "TEA")
    report = told(server, "request.profiled", answer)["report"]
    assert any("predict" in line or "__call__" in line for line in report)
    plain = client.post(f"{PREDICT}?PROFILING=0", json={"text": "tea"})
    assert plain.status_code == 200
    told(server, "linker.duration", plain)
    ids = {record["request_id"] for record in server.records("request.profiled")}
    assert plain.headers["x-request-id"] not in ids


def test_profiling_is_no_input_of_a_model(client: httpx2.Client) -> None:
    answer = client.post("/api/v1/models/size/predict?PROFILING=1", content=b"abc")
    assert (answer.status_code, answer.json()) == (200, 3)


def test_the_document_describes_the_envelope(client: httpx2.Client) -> None:
    document = client.get("/api/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    assert "/api/v1/health/ping" in document["paths"]
    failure = document["components"]["responses"]["Error422"]["content"]
    assert failure["application/json"]["schema"]["$ref"].endswith("/Envelope")
    assert "problem+json" not in json.dumps(document["components"]["responses"])
    assert "RFC 9457" not in document["info"]["description"]


class Louder(Wrapper):
    def predict(self, text: Text) -> str:
        return text.upper()


def events(records: Sequence[MutableMapping[str, Any]]) -> set[str]:
    return {record["event"] for record in records}


def test_without_the_conventions_nothing_of_them_is_there() -> None:
    linker = {"health_path": "/alive", "profiling": True}
    with capture_logs() as records, testing.serve(Louder, linker=linker) as client:
        assert client.get("/alive").headers["content-type"] == "application/problem+json"
        answer = client.post("/v1/models/louder/predict?PROFILING=1", json={"text": "a"})
        assert answer.json() == "A"
    assert not {"linker.headers", "linker.duration", "request.profiled"} & events(records)


def test_the_operator_names_the_health_route_and_profiles_all() -> None:
    linker = {"conventions": True, "health_path": "/alive", "profiling": True}
    linker["log_parameters"] = False
    with capture_logs() as records, testing.serve(Louder, linker=linker) as client:
        assert client.get("/alive").json() == {"is_alive": True}
        assert client.get("/v1/health/ping").status_code == 404
        client.post("/v1/models/louder/predict", json={"text": "a"})
    assert {"request.profiled", "linker.duration"} <= events(records)
    assert "linker.headers" not in events(records)


@pytest.mark.parametrize(("ready", "draining"), [(False, False), (True, True)])
def test_a_server_that_wants_no_requests_is_not_alive(ready: bool, draining: bool) -> None:
    checks = Server(ready=ready, draining=draining)
    routes = Conventions(LinkerSettings(conventions=True), prefix="/a").routes(checks)
    with TestClient(Starlette(routes=routes)) as client:
        answer = client.get("/a/v1/health/ping")
    assert (answer.status_code, answer.json()) == (503, {"is_alive": False})


@pytest.mark.parametrize("code", sorted(all_errors()))
def test_every_error_has_an_envelope_with_its_status(code: str) -> None:
    error = all_errors()[code]()
    status, headers, body = tell(error)
    found = json.loads(body)
    assert found["code"] == status == error.status
    assert found["msg"]
    assert (b"content-length", str(len(body)).encode()) in headers


def test_a_fault_is_placed_as_a_validation_error_is() -> None:
    error = Invalid(errors=[Fault("$.boxes[2].name", "expected str"), Fault("$", "too few")])
    assert [each["loc"] for each in envelope(error)["data"]] == [
        ["body", "boxes", 2, "name"],
        ["body"],
    ]


def test_a_lone_surrogate_does_not_keep_an_error_from_being_told() -> None:
    status, _, body = tell(BadRequest("\ud800"))
    assert (status, json.loads(body)["msg"]) == (400, "External Invoke Error")


FORM = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        ("application/json", b'{"a": [1], "token": "t"}', {"json": {"a": [1], "token": "***"}}),
        ("application/problem+json; charset=utf-8", b"[]", {"json": []}),
        ("application/json", b"{", {"bytes": b"{", "size": 1}),
        ("application/x-www-form-urlencoded", b"a=1&b=", {"urlencoded": {"a": "1", "b": ""}}),
        ("text/plain", "ä".encode() * 300, {"text": "ä" * 200}),
        ("application/xml", b"<a/>", {"xml": "<a/>"}),
        ("application/octet-stream", bytes(50), {"bytes": bytes(20)}),
        ("", b"x", {"bytes": b"x"}),
        ("multipart/form-data; boundary=b", FORM % (b"a", b"", b"1"), {"form": {"a": "1"}}),
        (
            "multipart/form-data; boundary=b",
            FORM % (b"f", b'; filename="x"', b"123"),
            {"form": {"f": "file of 3 bytes"}},
        ),
        ("multipart/form-data", b"x", {"bytes": b"x", "size": 1}),
        ("application/json", b"", {}),
    ],
)
def test_a_body_is_shown_by_its_content_type(kind: str, body: bytes, shown: Any) -> None:
    assert shown_body(kind, body, len(body)) == shown


def test_of_a_large_body_the_beginning_is_shown() -> None:
    body = b'{"image": "' + b"A" * MOST_READ
    shown = shown_body("application/json", body[:MOST_READ], len(body) * 9)
    assert shown == {"json": body[:200].decode()}


def test_a_query_is_shown_without_its_secrets() -> None:
    assert shown_query(b"a=1&api_key=k&flag=") == {"a": "1", "api_key": "***", "flag": ""}


def test_the_conventions_are_off_unless_asked_for() -> None:
    assert not LinkerSettings().conventions
    assert not LinkerSettings().profiling_on_request
