"""Whether a request's parameters, which are text, fit what the wrapper's fields say of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from atomserve.compat.aiges.configuration import text_of
from atomserve.compat.aiges.declared import key_of
from atomserve.errors import Fault, Invalid

Strictness = Literal["off", "warn", "strict"]

_BOOLEANS = ("true", "false", "1", "0")
_MOST_WARNED = 64
_log = logging.getLogger("aiges")


class Parameters:
    """Checks the parameters of one wrapper's requests."""

    def __init__(self, fields: Sequence[Any], strictness: Strictness) -> None:
        self._fields = {key_of(field): field for field in fields}
        self._strict = strictness == "strict"
        self._warned: set[str] = set()
        self.active = strictness != "off" and bool(fields)

    def check(self, params: Mapping[str, str]) -> None:
        """Warn once of each complaint; raises `Invalid` instead where parameters are strict."""
        if not self.active:
            return
        found = list(self._complaints(params))
        if found and self._strict:
            text = "; ".join(f"{fault.path}: {fault.message}" for fault in found)
            raise Invalid(text, errors=found)
        for fault in found:
            said = f"{fault.path}: {fault.message}"
            if said not in self._warned and len(self._warned) < _MOST_WARNED:
                self._warned.add(said)
                _log.warning("a request does not fit the fields: %s", said)

    def _complaints(self, params: Mapping[str, str]) -> Iterator[Fault]:
        for key, field in self._fields.items():
            if key in params:
                wrong = complaint(field, params[key])
            else:
                wrong = "required and missing" if field.required else ""
            if wrong:
                yield Fault(f"parameter.{key}", wrong)


def complaint(field: Any, text: str) -> str:
    """Say why ``text`` does not fit ``field``; empty if it does."""
    enums = [text_of(value) for value in getattr(field, "enums", ())]
    if enums:
        return "" if text in enums else f"expected one of {', '.join(enums)}"
    if field.data_type == "boolean":
        return "" if text.lower() in _BOOLEANS else "expected true or false"
    if field.data_type == "string":
        return _beyond(len(text), field, ("min_length", "max_length"), "a length of ")
    try:
        number = int(text) if field.data_type == "integer" else float(text)
    except ValueError:
        return f"expected a value of type {field.data_type}"
    return _beyond(number, field, ("minimum", "maximum"), "")


def _beyond(found: float, field: Any, names: tuple[str, str], what: str) -> str:
    least, most = (getattr(field, name, None) for name in names)
    if least is not None and found < least:
        return f"expected {what}at least {least}"
    if most is not None and not found <= most:
        return f"expected {what}at most {most}"
    return ""
