"""Media set aside while their document is read, and then read together.

What they name is opened only after the rest of the document has been found good, at places that
errors can tell.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, NamedTuple, Union

from atomserve.schemas import Marker
from atomserve.specs import Kind, Spec

MEDIA: frozenset[Kind] = frozenset(("blob", "image", "audio", "video"))
"""What may be named instead of being held."""


class Later(NamedTuple):
    """One medium as a document holds it; of a form's part, ``media_type`` is what it says."""

    found: Any
    media_type: str | None = None


class LaterMarker(Marker):
    """Stands in a decoded type for a medium that is read later."""


@cache
def _later(spec: Spec) -> type[LaterMarker]:
    return types.new_class(
        f"Later{type(spec).__name__}", (LaterMarker,), exec_body=lambda body: body.update(spec=spec)
    )


def deferred(annotation: Any) -> Any:
    """Return the type of an input that is a medium, or lists of them, with these read later."""
    if isinstance(annotation, type) and issubclass(annotation, Marker):
        return _later(annotation.spec)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(deferred(args[0]), *args[1:])]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(deferred, args))]  # noqa: UP007 - a marker's metaclass has no |
    if origin in (list, tuple):
        inner = (arg if arg is Ellipsis else deferred(arg) for arg in args)
        return types.GenericAlias(origin, tuple(inner))
    return annotation


def places(value: Any, path: str) -> Iterator[tuple[str, Later]]:
    """Yield what is to be read in ``value``, each with its path."""
    if type(value) is Later:
        yield path, value
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            yield from places(each, f"{path}[{number}]")


def filled(value: Any, read: Iterator[Any]) -> Any:
    """Return ``value`` with what was read, in the order of `places`."""
    if type(value) is Later:
        return next(read)
    if isinstance(value, (list, tuple)):
        return type(value)(filled(each, read) for each in value)
    return value
