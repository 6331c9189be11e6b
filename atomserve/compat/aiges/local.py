"""Run a wrapper once on its own test values, along the path of production."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.checks import Finding, check_resp
from atomserve.compat.aiges.configuration import text_of, texts
from atomserve.compat.aiges.declared import Declared, declared, key_of
from atomserve.compat.aiges.routing import ROUTES
from atomserve.compat.aiges.shim.aiges.core.types import DataEnd, Once
from atomserve.compat.aiges.shim.aiges.dto import DataListCls, DataListNode, Response

_log = logging.getLogger("aiges")
_SID = "test-111111"


class Outcome(NamedTuple):
    """What a local run sent, what came back, and what is wrong with it."""

    params: dict[str, str]
    request: DataListCls
    responses: list[Response]
    findings: list[Finding]
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong but what is served all the same."""
        return not self.failure and all(finding.tolerated for finding in self.findings)


def run(wrapper: Any, *, stream: bool = False) -> Outcome:
    """Try ``wrapper`` on its fields' test values, and log the outcome."""
    outcome = trial(Bound(wrapper), declared(wrapper), wrapper.config, stream=stream)
    for finding in outcome.findings:
        _log.warning("%s", finding)
    if outcome.ok:
        _log.info("the wrapper has been verified")
    else:
        _log.error("the wrapper is not right: %s", outcome.failure or "see above")
    return outcome


def trial(
    bound: Bound,
    wrapper: Declared,
    config: Any,
    *,
    stream: bool = False,
    patience: float = 60.0,
) -> Outcome:
    """Initialise a wrapper, run one request or session, and let it finish.

    Parameters are text, as in production. ``patience`` bounds the wait for each result.
    """
    params, request = sample_params(wrapper), sample_request(wrapper)
    outcome = Outcome(dict(params), request, [], [])
    code = bound.init(texts(config))
    if code:
        return outcome._replace(failure=f"init: {bound.message(code)}")
    try:
        with _local_results() as results:
            if stream:
                outcome.responses.extend(_session(bound, params, request, results, patience))
            else:
                outcome.responses.append(_once(bound, params, request, results, patience))
    except Exception as exc:  # noqa: BLE001 - a wrapper may raise anything
        _log.exception("the wrapper failed")
        return outcome._replace(failure=f"{type(exc).__name__}: {exc}")
    finally:
        bound.fini()
    return _judged(bound, wrapper, outcome, stream)


def sample_params(wrapper: Declared) -> dict[str, str]:
    """Return the parameters' test values as production sends them."""
    values = {key_of(param): param.test_value for param in wrapper.fields.params}
    return {key: text_of(value) for key, value in values.items()} | {"sid": _SID}


def sample_request(wrapper: Declared) -> DataListCls:
    """Return the inputs' test values as one request."""
    return DataListCls(
        [
            DataListNode(key_of(field), memoryview(field.test_value), None, Once, field.data_type)
            for field in wrapper.fields.inputs
        ]
    )


def _once(
    bound: Bound,
    params: dict[str, str],
    request: DataListCls,
    results: queue.Queue[Response],
    patience: float,
) -> Response:
    if bound.has("once"):
        return bound.once(dict(params), request, sid=_SID)
    code = bound.once_async(dict(params), request, sid=_SID)
    return Response(error_code=code) if code else _next(results, patience)


def _session(
    bound: Bound,
    params: dict[str, str],
    request: DataListCls,
    results: queue.Queue[Response],
    patience: float,
) -> Iterator[Response]:
    created = bound.create(dict(params), sid=_SID)
    if created.error_code:
        yield Response(error_code=created.error_code)
        return
    try:
        code = bound.write(created.handle, request, sid=_SID)
        if code:
            yield Response(error_code=code)
            return
        while True:
            response = _result(bound, created.handle, results, patience)
            yield response
            if response.error_code or any(i.status in (DataEnd, Once) for i in response.list):
                return
    finally:
        bound.destroy(created.handle, sid=_SID)


def _result(bound: Bound, handle: str, results: queue.Queue[Response], patience: float) -> Response:
    """Return the next result, called back or read."""
    if not bound.has("read"):
        return _next(results, patience)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            return results.get(timeout=0.05)
        except queue.Empty:
            response = bound.read(handle, sid=_SID)
        if response is not None and (response.list or response.error_code):
            return response
    raise TimeoutError(f"no result within {patience:g} s")


def _next(results: queue.Queue[Response], patience: float) -> Response:
    try:
        return results.get(timeout=patience)
    except queue.Empty:
        raise TimeoutError(f"no result within {patience:g} s") from None


@contextmanager
def _local_results() -> Iterator[queue.Queue[Any]]:
    results: queue.Queue[Any] = queue.Queue()
    ROUTES.keep_locally(results)
    try:
        yield results
    finally:
        ROUTES.keep_locally(None)


def _judged(bound: Bound, wrapper: Declared, outcome: Outcome, stream: bool) -> Outcome:
    for response in outcome.responses:
        if response.error_code:
            return outcome._replace(failure=bound.message(response.error_code))
        found = check_resp(response, wrapper.fields.accepts)
        # In a stream, pieces have the statuses 0, 1 and 2.
        outcome.findings.extend(item for item in found if not (stream and item.rule == 7))
    return outcome
