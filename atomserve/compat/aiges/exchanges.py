"""One request or session of a wrapper with its own test values, and the wait for its results."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.configuration import text_of
from atomserve.compat.aiges.declared import Declared, key_of
from atomserve.compat.aiges.routing import ROUTES
from atomserve.compat.aiges.shim.aiges.core.types import DataBegin, DataContinue, DataEnd, Once
from atomserve.compat.aiges.shim.aiges.dto import DataListCls, DataListNode, Response

Mode = Literal["once", "async", "stream"]

_SID = "test-111111"


class Given(NamedTuple):
    """What is sent instead of the fields' test values, or beside them."""

    params: Mapping[str, str] = {}
    inputs: Mapping[str, tuple[bytes, int]] = {}
    """Data by key, each with its type."""


NOTHING = Given()


def sample_params(wrapper: Declared, given: Given = NOTHING) -> dict[str, str]:
    """Return the parameters' test values as production sends them."""
    values = {key_of(param): text_of(param.test_value) for param in wrapper.fields.params}
    return values | dict(given.params) | {"sid": _SID}


def sample_request(wrapper: Declared, given: Given = NOTHING) -> DataListCls:
    """Return the inputs' test values as one request."""
    fields = [field for field in wrapper.fields.inputs if key_of(field) not in given.inputs]
    sent = {key_of(field): (field.test_value, field.data_type) for field in fields}
    return DataListCls(
        [
            DataListNode(key, memoryview(data), None, Once, kind)
            for key, (data, kind) in (sent | dict(given.inputs)).items()
        ]
    )


def ask_once(bound: Bound, params: dict[str, str], request: DataListCls) -> Response:
    """Run one request."""
    return bound.once(dict(params), request, sid=_SID)


def ask_later(
    bound: Bound,
    params: dict[str, str],
    request: DataListCls,
    *,
    results: queue.Queue[Response],
    patience: float,
) -> Iterator[Response]:
    """Run one request whose result is called back, whole or in pieces."""
    code = bound.once_async(dict(params), request, sid=_SID)
    if code:
        yield Response(error_code=code)
        return
    while True:
        response = _next(results, patience)
        yield response
        begun = any(item.status in (DataBegin, DataContinue) for item in response.list)
        if response.error_code or not begun:
            return


def ask_in_session(
    bound: Bound,
    params: dict[str, str],
    request: DataListCls,
    *,
    results: queue.Queue[Response],
    patience: float,
) -> Iterator[Response]:
    """Run one session, from its Create to its Destroy."""
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
def local_results() -> Iterator[queue.Queue[Any]]:
    """Collect what is called back within this context."""
    results: queue.Queue[Any] = queue.Queue()
    ROUTES.keep_locally(results)
    try:
        yield results
    finally:
        ROUTES.keep_locally(None)
