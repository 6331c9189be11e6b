"""The three generations of wrappers, and which of them a module holds."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any, Literal, NamedTuple

from atomserve.errors import PluginError

Generation = Literal["G1", "G2", "G3"]

_SHIM = "atomserve.compat.aiges.shim."
_BASE = "WrapperBase"
_SDK = ("aiges.sdk", f"{_SHIM}aiges.sdk")
_THIRD = ("python_wrapper", f"{_SHIM}python_wrapper")
_ENTRIES = ("wrapperOnceExec", "wrapperOnceExecAsync", "wrapperCreate")


class Found(NamedTuple):
    """The wrapper of a module: a class, or the module itself for the first generation."""

    generation: Generation
    target: Any


def find(module: ModuleType) -> Found:
    """Find the wrapper in ``module``.

    That is the class ``Wrapper``, else the only class of the module that derives from
    ``WrapperBase``, else the module with functions. Raises `PluginError` for another number.
    """
    named = getattr(module, "Wrapper", None)
    if isinstance(named, type) and _is_wrapper(named):
        return Found(generation_of(named), named)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
        if _base_of(value) is not None and value.__name__ != _BASE
    ]
    leaves = [cls for cls in own if not any(cls in other.__mro__[1:] for other in own)]
    if len(leaves) == 1:
        return Found(generation_of(leaves[0]), leaves[0])
    if not leaves and any(callable(getattr(module, name, None)) for name in _ENTRIES):
        return Found("G1", module)
    counted = " and ".join(cls.__name__ for cls in leaves) or "none"
    raise PluginError(
        f"{module.__file__}: expected a class Wrapper, or functions such as wrapperOnceExec; "
        f"classes of wrappers found: {counted}"
    )


def generation_of(target: Any) -> Generation:
    """Return the generation of a class, an instance or a module."""
    if isinstance(target, ModuleType):
        return "G1"
    cls = target if isinstance(target, type) else type(target)
    base = _base_of(cls)
    if base is not None:
        return "G3" if base.__module__ in _THIRD else "G2"
    return "G2" if any(hasattr(cls, name) for name in _ENTRIES) else "G3"


def construct(target: Any) -> Any:
    """Make the wrapper: an instance of its class, or the module itself.

    Without arguments, as production does; a class that asks for them gets the keywords that the
    SDK's gRPC mode passes. Raises `PluginError` if neither fits.
    """
    if not isinstance(target, type):
        return target
    keywords = {"legacy": True, "is_aipaas": True, "keep_schema_default_value": True}
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of a class that is not Python code
        return target()
    for arguments in ({}, keywords):
        try:
            signature.bind(**arguments)
        except TypeError:
            continue
        return target(**arguments)
    raise PluginError(f"{target.__name__}{signature}: cannot be made without arguments")


def inherited(owner: Any, attribute: str) -> bool:
    """Say whether ``attribute`` is only what the SDK's base class has: not the wrapper's own.

    ``owner`` is a wrapper, or its class.
    """
    of = owner if isinstance(owner, type) else type(owner)
    if of is not owner and attribute in getattr(owner, "__dict__", {}):
        return False
    for cls in of.__mro__:
        if attribute in vars(cls):
            return cls.__name__ == _BASE and cls.__module__ in (*_SDK, *_THIRD)
    return False


def _is_wrapper(cls: type) -> bool:
    return _base_of(cls) is not None or any(hasattr(cls, name) for name in (*_ENTRIES, "exec"))


def _base_of(cls: type) -> type | None:
    for base in cls.__mro__:
        if base.__name__ == _BASE and base.__module__ in (*_SDK, *_THIRD):
            return base
    return None
