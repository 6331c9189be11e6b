"""Defaults of dataclasses set on what was decoded: msgspec leaves plain ones on the class.

From there its encoders do not write them, so an answer that is a request's own value would lack
what the request left out.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import msgspec

from atomserve.schemas import class_fields


def holds_defaults(annotation: Any) -> bool:
    """Tell whether a value of this type may hold a dataclass with plain defaults."""
    waiting, seen = [annotation], set[Any]()
    while waiting:
        each = waiting.pop()
        waiting += typing.get_args(each)
        if not isinstance(each, type) or each in seen:
            continue
        seen.add(each)
        if dataclasses.is_dataclass(each) and _plain_defaults(each):
            return True
        waiting += [inner for _, inner, _ in class_fields(each) or ()]
    return False


def complete(value: Any) -> Any:
    """Set what every dataclass in ``value`` has by default, and return ``value``."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, msgspec.Struct):
            waiting += msgspec.structs.astuple(each)
        elif dataclasses.is_dataclass(each):
            for name in _plain_defaults(type(each)):
                object.__setattr__(each, name, getattr(each, name))  # it may be frozen
            waiting += [getattr(each, field.name) for field in dataclasses.fields(each)]
    return value


def _plain_defaults(cls: Any) -> list[str]:
    fields = dataclasses.fields(cls)
    return [f.name for f in fields if f.init and f.default is not dataclasses.MISSING]
