"""Turn annotations into types that msgspec can decode, with the fields in them kept apart.

msgspec shows a decoding hook only the class of a custom type, never its ``Annotated`` metadata, so
every field becomes a marker class of its own, and a class that holds fields becomes a shadow Struct
whose values are built back into the author's class.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from typing import Annotated, Any, Optional, Union
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from atomserve.specs import Kind, Spec, Tensor, spec_of

Leaf = Callable[[Spec, Any], Any]
Rebuild = Callable[[Any], Any]
Spread = Callable[[Any, Leaf], Any]

REFERENCE = "#/components/schemas/{name}"


class _Accepting(type):
    """msgspec checks what a hook returns against the marker; whatever the codec made is right."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return True


class Marker(metaclass=_Accepting):
    """Stands in a decoded type for one field; ``spec`` says which."""

    spec: Spec


class Marked(msgspec.Struct, frozen=True):
    """An annotation made decodable.

    ``rebuild`` turns what msgspec decoded into what the author annotated; ``spread`` turns the
    author's value into builtins, passing every field in it to a function. None: nothing to do.
    """

    type: Any
    rebuild: Rebuild | None = None
    spread: Spread | None = None


@cache
def marker_of(spec: Spec) -> type[Marker]:
    """Return the marker class that stands for ``spec``."""
    return types.new_class(
        f"{type(spec).__name__}Marker", (Marker,), exec_body=lambda body: body.update(spec=spec)
    )


def unwrapped(annotation: Any) -> Any:
    """Return ``X`` for ``X | None``, else the annotation itself."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        rest = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return annotation


def field_of(annotation: Any) -> Spec | None:
    """Return the field that ``annotation`` is, optional or not."""
    return spec_of(annotation) or spec_of(unwrapped(annotation))


def kind_of(annotation: Any) -> Kind:
    """Return which kind of field ``annotation`` is; ``json`` for everything plain."""
    spec = field_of(annotation)
    return spec.kind if spec is not None else "json"


def mark(annotation: Any, *, inside: tuple[type, ...] = ()) -> Marked:  # noqa: PLR0911 - a table
    """Make ``annotation`` decodable; ``inside`` holds the classes being marked around it.

    Raises:
        TypeError: it is, or holds, an array without a `Tensor`.
    """
    spec = spec_of(annotation)
    if spec is not None and spec.kind != "text":
        return Marked(marker_of(spec), None, lambda value, leaf: leaf(spec, value))
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is np.ndarray or origin is np.ndarray:
        raise TypeError(
            "a bare np.ndarray says neither dtype nor shape; "
            'write Annotated[np.ndarray, Tensor("float32", (-1, 3))]'
        )
    if origin is Annotated:
        inner = mark(args[0], inside=inside)
        if inner.spread is None:
            return Marked(annotation)
        return Marked(Annotated[(inner.type, *args[1:])], inner.rebuild, inner.spread)
    if origin in (Union, types.UnionType):
        return _mark_union(annotation, args, inside)
    if origin is list or (origin is tuple and len(args) == 2 and args[1] is Ellipsis):
        return _mark_list(annotation, origin, args[0], inside)
    if origin is dict:
        return _mark_dict(annotation, args, inside)
    if isinstance(annotation, type) and annotation not in inside:
        # One shadow for each class: two of one name would collide in a JSON Schema.
        if annotation not in _classes:
            _classes[annotation] = _mark_class(annotation, (*inside, annotation))
        return _classes[annotation]
    return Marked(annotation)


_classes: WeakKeyDictionary[type, Marked] = WeakKeyDictionary()


def _mark_union(annotation: Any, args: tuple[Any, ...], inside: tuple[type, ...]) -> Marked:
    members = [mark(arg, inside=inside) for arg in args]
    holders = [member for member in members if member.spread is not None]
    if not holders:
        return Marked(annotation)
    if len(members) != 2 or type(None) not in args:
        raise TypeError(f"{annotation} mixes a field with other types; only None may join it")
    (holder,) = holders
    rebuild, spread = holder.rebuild, holder.spread
    assert spread is not None
    return Marked(
        Optional[holder.type],  # noqa: UP045 - a marker's metaclass has no | operator
        rebuild and (lambda value: None if value is None else rebuild(value)),
        lambda value, leaf: None if value is None else spread(value, leaf),
    )


def _mark_list(annotation: Any, origin: type, item: Any, inside: tuple[type, ...]) -> Marked:
    inner = mark(item, inside=inside)
    rebuild, spread = inner.rebuild, inner.spread
    if spread is None:
        return Marked(annotation)
    return Marked(
        types.GenericAlias(origin, inner.type if origin is list else (inner.type, ...)),
        rebuild and (lambda values: origin(map(rebuild, values))),
        lambda values, leaf: [spread(value, leaf) for value in values],
    )


def _mark_dict(annotation: Any, args: tuple[Any, ...], inside: tuple[type, ...]) -> Marked:
    inner = mark(args[1], inside=inside)
    rebuild, spread = inner.rebuild, inner.spread
    if spread is None:
        return Marked(annotation)
    return Marked(
        types.GenericAlias(dict, (args[0], inner.type)),
        rebuild and (lambda values: {key: rebuild(value) for key, value in values.items()}),
        lambda values, leaf: {key: spread(value, leaf) for key, value in values.items()},
    )


def _mark_class(cls: type, inside: tuple[type, ...]) -> Marked:
    fields = class_fields(cls)
    if fields is None:
        return Marked(cls)
    marked = {name: mark(annotation, inside=inside) for name, annotation, _ in fields}
    if all(inner.spread is None for inner in marked.values()):
        return Marked(cls)
    struct = shadow(
        cls.__name__, [(n, marked[n].type, default) for n, _, default in fields], cls.__module__
    )
    rebuilds = [(name, inner.rebuild) for name, inner in marked.items()]
    spreads = [(name, inner.spread) for name, inner in marked.items()]

    def rebuild(value: Any) -> Any:
        return cls(
            **{
                name: again(getattr(value, name)) if again else getattr(value, name)
                for name, again in rebuilds
            }
        )

    def spread(value: Any, leaf: Leaf) -> Any:
        return {
            name: each(getattr(value, name), leaf) if each else getattr(value, name)
            for name, each in spreads
        }

    return Marked(struct, rebuild, spread)


def class_fields(cls: type) -> list[tuple[str, Any, Any]] | None:
    """List name, annotation and default of a Struct's or dataclass's fields; None for others.

    The default is `msgspec.NODEFAULT` for a required field.
    """
    if issubclass(cls, msgspec.Struct):
        return [
            (f.name, f.type, _default(f.default, f.default_factory, msgspec.NODEFAULT))
            for f in msgspec.structs.fields(cls)
        ]
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return [
            (f.name, hints[f.name], _default(f.default, f.default_factory, dataclasses.MISSING))
            for f in dataclasses.fields(cls)
            if f.init
        ]
    return None


def _default(value: Any, factory: Any, missing: Any) -> Any:
    if factory is not missing:
        return msgspec.field(default_factory=factory)
    return msgspec.NODEFAULT if value is missing else value


def shadow(
    name: str, fields: list[tuple[str, Any, Any]], module: str = __name__
) -> type[msgspec.Struct]:
    """Define a Struct that refuses unknown keys; defaults as `class_fields` lists them."""
    return msgspec.defstruct(
        name,
        [(n, t) if d is msgspec.NODEFAULT else (n, t, _fresh(d)) for n, t, d in fields],
        kw_only=True,
        forbid_unknown_fields=True,
        module=module,
    )


def _fresh(default: Any) -> Any:
    if isinstance(default, (list, dict, set, bytearray)):
        return msgspec.field(default_factory=default.copy)
    if dataclasses.is_dataclass(default) or isinstance(default, msgspec.Struct):
        # The author's code may change what it is given: the next request must not see that.
        return msgspec.field(default_factory=partial(deepcopy, default))
    return default


class Schemas(msgspec.Struct, frozen=True):
    """JSON Schemas of a model's inputs (by name) and output, and what they refer to."""

    inputs: dict[str, Any]
    required: frozenset[str]
    output: dict[str, Any]
    definitions: dict[str, Any]


def json_schemas(inputs: Any, output: Any) -> Schemas:
    """Describe the Struct of inputs and the output type as JSON Schema 2020-12.

    Raises:
        TypeError: a type has no JSON Schema.
    """
    (reference, result), definitions = msgspec.json.schema_components(
        (inputs, output), schema_hook=_schema_hook, ref_template=REFERENCE
    )
    own = definitions.pop(reference["$ref"].rpartition("/")[2])
    return Schemas(own["properties"], frozenset(own.get("required", ())), result, definitions)


def sendable(annotation: Any) -> bool:
    """Say whether a type has a JSON Schema."""
    try:
        msgspec.json.schema_components((annotation,), schema_hook=_schema_hook)
    except (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError):
        return False
    return True


def _schema_hook(cls: type) -> dict[str, Any]:
    if not issubclass(cls, Marker):
        raise TypeError(
            f"{cls.__name__}; expected a field, a plain type, a msgspec.Struct or a dataclass"
        )
    if isinstance(cls.spec, Tensor):
        return _tensor_schema(cls.spec)
    return {
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": cls.spec.media_type,
    }


def _tensor_schema(spec: Tensor) -> dict[str, Any]:
    schema: dict[str, Any]
    if spec.dtype == "bool":
        schema = {"type": "boolean"}
    elif spec.dtype.startswith("float"):
        schema = {"type": "number"}
    else:
        info = np.iinfo(spec.dtype)
        schema = {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}
    title = f"{spec.dtype} tensor"
    if spec.shape is None:
        return {"type": ["array", schema["type"]], "description": f"{title} of any shape"}
    for size in reversed(spec.shape):
        bounds = {} if size == -1 else {"minItems": size, "maxItems": size}
        schema = {"type": "array", "items": schema, **bounds}
    return {**schema, "description": f"{title} of shape {list(spec.shape)}"}
