"""What a wrapper's return values mean, whatever their generation writes."""

from __future__ import annotations

import json
import logging
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from atomserve.codecs.athena.nodes import END, TYPES
from atomserve.compat.aiges.shim.aiges.dto import (
    Response,
    ResponseData,
    SessionCreateResponse,
    stored,
)
from atomserve.compat.aiges.values import kind, size, text
from atomserve.errors import BadAnswer

_log = logging.getLogger("aiges")

_TYPES = {**TYPES, **{str(number): number for number in TYPES.values()}}
_STATUSES = {"begin": 0, "continue": 1, "end": 2, "once": 3, "0": 0, "1": 1, "2": 2, "3": 3}
_MOST_NUMBER = 1 << 31


class Piece(NamedTuple):
    """One piece of a result, ready to be encoded."""

    key: str
    data: bytes | memoryview
    type: int
    status: int
    desc: dict[str, Any]


def code_of(value: Any, method: str) -> int:
    """Return the error code that ``method`` returned; 0 is success.

    Raises `BadAnswer` for what is no code. None is 0, which callers may want to warn of.
    """
    if value is None:
        return 0
    if hasattr(value, "error_code"):
        value = value.error_code
    try:
        return operator.index(value)
    except TypeError:
        raise BadAnswer(f"{method} returned {kind(value)}, not an int") from None


def response_of(
    value: Any, method: str, *, results: Sequence[Any] = (), sugar: str | None = None
) -> Response:
    """Return what ``method`` answered to one request, as a `Response`.

    ``results`` is what a function-style wrapper put into its ``respData``. With ``sugar`` a dict
    is taken as data by key, and text or bytes as the data of the key that ``sugar`` names.
    """
    if hasattr(value, "list") and hasattr(value, "error_code"):
        return value if isinstance(value, Response) else _copied(value)
    if isinstance(value, tuple) and len(value) == 2:
        return _pair(value, method)
    if isinstance(value, list):
        return Response([_item(item, method) for item in value])
    if sugar is not None and isinstance(value, dict | str | bytes):
        pairs = value.items() if isinstance(value, dict) else [(sugar, value)]
        return Response([ResponseData(key, _plain(data)) for key, data in pairs])
    if value is None and not results:
        raise BadAnswer(f"{method} returned None, not a Response")
    try:
        code = 0 if value is None else operator.index(value)
    except TypeError:
        raise BadAnswer(f"{method} returned {kind(value)}, not a Response") from None
    return Response([_item(item, method) for item in results], code)


def created_of(value: Any, method: str, *, sid: str) -> SessionCreateResponse:
    """Return the handle that ``method`` chose for a new session, or its error code.

    A session without a handle of its own goes by its sid.
    """
    if hasattr(value, "handle") and hasattr(value, "error_code"):
        handle, code = value.handle, code_of(value.error_code, method)
    elif isinstance(value, str | bytes):
        handle, code = value, 0
    elif isinstance(value, tuple) and len(value) == 2:
        first, second = value
        handle, code = (first, second) if isinstance(first, str | bytes) else (second, first)
        code = code_of(code, method)
    elif value is None:
        raise BadAnswer(f"{method} returned None, not a SessionCreateResponse")
    else:
        handle, code = "", code_of(value, method)
    name = text(handle or "")
    return SessionCreateResponse(name if code else name or sid, code)


def pieces_of(response: Any, *, warned: set[str], c_len: bool = False) -> list[Piece]:
    """Return the pieces of a response, without its blank items.

    A wrong ``len`` is ignored, with one warning for each key that is not in ``warned`` yet; with
    ``c_len`` it cuts the data, as the C++ loader does.
    """
    found = []
    for item in response.list:
        key, data = text(item.key), stored(item.data)
        held = size(data)
        if not key and not held:
            continue
        if item.len != held:
            if c_len:
                data = memoryview(data).cast("B")[: item.len]
            elif key not in warned:
                warned.add(key)
                _log.warning("%s: len says %s, the data is %s long: ignored", key, item.len, held)
        sort, status = _number(item, "type", _TYPES), _number(item, "status", _STATUSES)
        found.append(Piece(key, data, sort, status, getattr(item, "desc", {})))
    return found


def size_of(response: Any) -> int:
    """Return how many bytes a result holds; 0 for what is none, which `response_of` will tell."""
    items = getattr(response, "list", ())
    if not isinstance(items, list | tuple):  # a generator is read once
        return 0
    try:
        return sum(size(stored(item.data)) for item in items)
    except (TypeError, ValueError, AttributeError):
        return 0


def ends(response: Any) -> bool:
    """Say whether a blank item of a stream's result says, without data, that it is the last."""
    return any(
        not item.key and not size(stored(item.data)) and item.status == END
        for item in response.list
    )


def _number(item: Any, name: str, words: Mapping[str, int]) -> int:
    """Return an item's type or status, which some wrappers write as text.

    Raises `BadAnswer` for what is no such number: it could not leave this process.
    """
    value = getattr(item, name)
    if isinstance(value, str):
        value = words.get(value.strip().lower(), value)
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < _MOST_NUMBER:
        shown = repr(value)[:40] if isinstance(value, str | int | None) else kind(value)
        raise BadAnswer(f"{text(item.key)}: the {name} is {shown}, not a number of AIGES")
    return number


def _pair(value: tuple[Any, Any], method: str) -> Response:
    first, second = value
    items, code = (second, first) if isinstance(first, int) else (first, second)
    if items is None:
        items = ()
    if not isinstance(items, Iterable) or isinstance(items, str | bytes | dict):
        raise BadAnswer(f"{method} returned {kind(items)} where a list of data is expected")
    return Response([_item(item, method) for item in items], code_of(code, method))


def _item(item: Any, method: str) -> Any:
    if not isinstance(item, dict):
        if hasattr(item, "key") and hasattr(item, "data"):
            return item
        raise BadAnswer(f"{method}: {kind(item)} is no piece of a result")
    if "key" not in item or "data" not in item:
        raise BadAnswer(f"{method}: a piece of the result has no key or no data")
    return ResponseData(
        item["key"],
        stored(item["data"]),
        item.get("len"),
        item.get("type", 0),
        item.get("status", 3),
        desc=item.get("desc"),
    )


def _copied(value: Any) -> Response:
    return Response(list(value.list), code_of(value.error_code, "error_code"))


def _plain(data: Any) -> Any:
    if isinstance(data, str | bytes | bytearray | memoryview):
        return data
    return json.dumps(data, ensure_ascii=False)
