"""The nine rules that a result of a wrapper should keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from atomserve.compat.aiges.declared import key_of, kind_of
from atomserve.compat.aiges.shim.aiges.core.types import Once, Types
from atomserve.compat.aiges.values import kind, size


class Finding(NamedTuple):
    """A rule that a result breaks; what is ``tolerated`` is served all the same."""

    rule: int
    message: str
    tolerated: bool = False

    def __str__(self) -> str:
        return f"rule {self.rule}: {self.message}"


def check_resp(response: Any, accepts: Sequence[Any] = ()) -> list[Finding]:
    """Return what is wrong with the result of a request that is not a stream's.

    A result with an error code is right as it is, with or without pieces. The last two rules ask
    what the wrapper declares; they are left out where it declares no ``accepts``.
    """
    if not hasattr(response, "list") or not hasattr(response, "error_code"):
        return [Finding(1, f"the result is {kind(response)}, not a Response")]
    if response.error_code != 0:
        return []
    items = [item for item in response.list if not _blank(item)]
    if not items:
        return [Finding(2, "the Response has no ResponseData in its list")]
    return [*_data(items), *_keys(items), *_statuses(items), *_declared(items, accepts)]


def _data(items: Sequence[Any]) -> Iterator[Finding]:
    for item in items:
        given = getattr(item, "given", type(item.data))
        if not issubclass(given, bytes | memoryview):
            message = f"{item.key}: the data should be bytes, not {given.__name__}"
            yield Finding(4, message, tolerated=isinstance(item.data, bytes | memoryview))
        held = size(item.data)
        if item.len != held:
            yield Finding(5, f"{item.key}: len says {item.len}, the data is {held} long", True)


def _keys(items: Sequence[Any]) -> Iterator[Finding]:
    keys = [key_of(item) for item in items]
    for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
        yield Finding(6, f"{key}: two pieces have this key")


def _statuses(items: Sequence[Any]) -> Iterator[Finding]:
    for item in items:
        if item.status != Once:
            yield Finding(7, f"{item.key}: the status is {item.status}, not Once ({Once})")


def _declared(items: Sequence[Any], accepts: Sequence[Any]) -> Iterator[Finding]:
    kinds = {key_of(field): kind_of(field) for field in accepts}
    for item in items if kinds else ():
        key = key_of(item)
        if key not in kinds:
            yield Finding(8, f"{key}: the response class declares only {', '.join(kinds)}")
        elif Types.get(item.type) != kinds[key]:
            found = Types.get(item.type, str(item.type))
            yield Finding(9, f"{key}: the type is {found}, declared is {kinds[key]}")


def _blank(item: Any) -> bool:
    return not item.key and not size(item.data)
