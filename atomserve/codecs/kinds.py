"""Which Python types a value may be of, by its annotation; only its outermost type counts."""

from __future__ import annotations

import types
import typing
from abc import ABCMeta
from collections.abc import Mapping
from typing import Annotated, Any, Union

import numpy as np

SEVERAL = (list, tuple, set, frozenset, np.ndarray)
"""All written as arrays, and taken for each other."""

ALSO: dict[Any, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (float, int, np.floating, np.integer),
    str: (str,),
    bytes: (bytes, bytearray, memoryview),
    dict: (dict, Mapping),
    list: SEVERAL,
    tuple: SEVERAL,
    set: SEVERAL,
    frozenset: SEVERAL,
    None: (type(None),),
    type(None): (type(None),),
}
"""What is written as a plain type is, too."""


def kinds_of(annotation: Any) -> tuple[type, ...] | None:
    """Return the types for ``isinstance``; None where it would not tell."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return kinds_of(args[0])
    if origin in (Union, types.UnionType):
        members = [kinds_of(member) for member in args]
        found = [each for each in members if each is not None]
        return tuple(kind for each in found for kind in each) if found == members else None
    kind = annotation if origin is None else origin
    if kind in ALSO:
        return ALSO[kind]
    # Instances do not show the class of a TypedDict, and an abstract one says how, not what.
    tells = isinstance(kind, type) and not isinstance(kind, ABCMeta)
    if not tells or kind in (Any, object) or typing.is_typeddict(kind):
        return None
    return (kind,)


def named(annotation: Any) -> str:
    """Name a type for people."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
