"""What a wrapper class may say wrongly beside its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from atomserve.errors import ConfigError
from atomserve.wrapper import Example, Wrapper

Complaint = tuple[str, str]
"""Which member of the class, and what is wrong with it."""


def method_complaints(cls: type[Wrapper], method: str) -> Iterator[Complaint]:
    """Yield what would keep the class from being made, loaded or called."""
    if isinstance(inspect.getattr_static(cls, method), staticmethod | classmethod):
        yield method, "is no method of an instance; expected `self` first"
    elif not inspect.signature(getattr(cls, method)).parameters:
        yield method, "takes nothing; expected `self` first"
    if not _takes(cls, 0):
        yield "__init__", "wants arguments; expected none: `load` is given the configuration"
    if not _takes(cls.load, 2):
        yield "load", "expected `load(self, config)`"
    if not _takes(cls.unload, 1):
        yield "unload", "expected `unload(self)`"


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*(None,) * count)
    except TypeError:
        return False
    except ValueError:  # it has no signature that can be read
        return True
    return True


def example_complaints(
    cls: type[Wrapper], names: Collection[str], required: Collection[str]
) -> Iterator[Complaint]:
    """Yield which examples are none, or have other inputs than the model."""
    examples: Any = cls.examples
    if not isinstance(examples, Sequence):
        yield "examples", f"is of type {type(examples).__name__}; expected a list of Example"
        return
    for number, example in enumerate(examples, 1):
        if not isinstance(example, Example) or not isinstance(example.inputs, Mapping):
            kind = type(example).__name__
            yield "examples", f"number {number} is of type {kind}; expected Example(inputs={{...}})"
            continue
        for name in example.inputs:
            if name not in names:
                yield "examples", f"number {number} has {name!r}; expected of: {', '.join(names)}"
        for name in required:
            if name not in example.inputs:
                yield "examples", f"number {number} lacks {name!r}, which is required"


def batch_complaints(
    cls: type[Wrapper], method: str, scalars: Collection[str], tensors: Collection[str]
) -> Iterator[Complaint]:
    """Yield which of the attributes for ``predict_batch`` do not fit the inputs."""
    known = ", ".join(scalars) or "none"
    for name in ("batch_key", "batch_cost", "stack"):
        if getattr(cls, name) and method != "predict_batch":
            yield name, f"is for predict_batch, not for {method}"
    if cls.batch_key and cls.batch_key not in scalars:
        yield "batch_key", f"{cls.batch_key!r} is no scalar input; expected of: {known}"
    if cls.batch_cost and cls.batch_cost not in (*scalars, "bytes"):
        yield "batch_cost", f"{cls.batch_cost!r} is no scalar input; expected of: bytes, {known}"
    if cls.stack not in (False, True, "group", "pad"):
        yield "stack", f'is {cls.stack!r}; expected False, True, "group" or "pad"'
    elif cls.stack and not tensors:
        yield "stack", "no input is a Tensor: there is nothing to stack"


def default_complaint(annotation: Any, default: Any) -> str:
    """Return what is wrong with a plain input's default, if it is of another type than the input.

    One that only breaks a bound is let through: authors mark so that nothing was given.
    """
    try:
        # Not JSON, which has no NaN.
        msgspec.msgpack.decode(msgspec.msgpack.encode(default), type=annotation, dec_hook=_field)
    except msgspec.ValidationError as exc:
        return str(exc) if ", got `" in str(exc) else ""
    except (TypeError, ValueError, NotImplementedError):
        return ""
    return ""


def _field(cls: type, value: Any) -> Any:
    raise NotImplementedError  # a field's default is the plugin's own affair


def check_config(model: str, config: Mapping[str, Any], wanted: Any) -> None:
    """Do nothing if ``load`` can be given ``config``, which the operator wrote.

    Raises:
        ConfigError: it does not fit.
    """
    try:
        msgspec.convert(config, wanted, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"models.{model}.config: {exc}") from exc


def config_complaint(annotation: Any) -> str:
    """Return what is wrong with the annotation of ``load``'s configuration."""
    try:
        msgspec.json.schema(annotation)
    except (TypeError, RuntimeError, NotImplementedError):
        name = getattr(annotation, "__name__", str(annotation))
        return f"{name} cannot be a configuration; expected a msgspec.Struct, a dataclass or dict"
    return ""
