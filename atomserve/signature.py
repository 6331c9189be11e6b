"""What a wrapper's annotations say, read once: as plain data for surfaces, as types for codecs.

`Signature` is data that crosses processes: routing, OpenAPI and metadata need nothing else.
`Contract` adds the live types and the way to call; it exists only where the wrapper itself does.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, Literal

import msgspec

from atomserve.class_checks import (
    Complaint,
    batch_complaints,
    config_complaint,
    default_complaint,
    example_complaints,
    method_complaints,
)
from atomserve.errors import PluginError
from atomserve.schemas import (
    Marked,
    Rebuild,
    Spread,
    class_fields,
    field_of,
    json_schemas,
    kind_of,
    mark,
    sendable,
    shadow,
)
from atomserve.specs import Kind
from atomserve.wrapper import Wrapper

Takes = Literal["call", "batch", "session"]

STREAMS = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator)
METHODS: dict[str, Takes] = {"predict": "call", "predict_batch": "batch", "session": "session"}


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output as data."""

    name: str
    kind: Kind
    schema: dict[str, Any]
    """JSON Schema (2020-12) of its JSON form."""
    required: bool = True
    scalar: bool = False
    """May be written as plain text: in a query string, in a form part."""
    dtype: str = ""
    dims: tuple[int, ...] | None = None
    """A tensor's shape, -1 for free dimensions; None for any rank, and for all other kinds."""
    media_type: str = ""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A model's inputs and output as plain data."""

    takes: Takes
    streams: bool
    """Many answers to one request."""
    inputs: tuple[Field, ...]
    output: Field
    """The answer, or one item of a stream."""
    definitions: dict[str, Any] = {}
    """Schemas that the fields refer to as ``#/components/schemas/NAME``."""
    description: str = ""
    version: str = "1"
    examples: tuple[dict[str, Any], ...] = ()
    """Inputs of the examples in their JSON form."""
    sessions: bool = False
    """Takes sessions beside what ``takes`` says; an item has the same inputs as a request."""
    dialects: dict[str, dict[str, Any]] = {}
    """Other protocols that it may be asked by, each with what its surface has to know."""

    @property
    def talks(self) -> bool:
        """A client may open a session."""
        return self.sessions or self.takes == "session"

    @property
    def binary_input(self) -> Field | None:
        """The one input that a raw body can be, if there is exactly one."""
        found = [field for field in self.inputs if field.media_type and field.kind != "text"]
        return found[0] if len(found) == 1 else None


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """The live side of a signature: the types to decode to, and how the wrapper is called."""

    signature: Signature
    method: str
    inputs: type[msgspec.Struct]
    """A Struct with one field for each input."""
    rebuilds: dict[str, Rebuild]
    """Inputs to build back into the author's own classes after decoding."""
    spreads: dict[str, Spread]
    """Inputs that hold fields, the other way round."""
    output: Marked
    positional: tuple[str, ...]
    keywords: tuple[str, ...]
    request: type | None = None
    """The class whose fields are the inputs of a batch's request or of a session's item."""
    is_async: bool = False
    config: Any = dict
    """What ``load`` wants its configuration to be."""


def read_contract(cls: type[Wrapper], *, plugin: str = "") -> Contract:
    """Read and check what ``cls`` says of itself.

    Raises:
        PluginError: with the plugin, the method, what was found and what was expected.
    """
    return _Reader(cls, plugin or cls.__name__).read()


def describe(
    name: str,
    annotation: Any,
    schema: dict[str, Any],
    definitions: dict[str, Any],
    required: bool = True,
) -> Field:
    """Describe one input or output as data; ``definitions`` holds what ``schema`` refers to."""
    spec = field_of(annotation)
    return Field(
        name=name,
        kind=kind_of(annotation),
        schema=schema,
        required=required,
        scalar=_is_scalar(schema, definitions) and (spec is None or spec.kind == "text"),
        dtype=getattr(spec, "dtype", ""),
        dims=getattr(spec, "shape", None),
        media_type=spec.media_type if spec is not None else "",
    )


def _is_scalar(schema: dict[str, Any], definitions: dict[str, Any]) -> bool:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return all(_is_scalar(choice, definitions) for choice in schema["anyOf"])
    return "enum" in schema or schema.get("type") in (
        "string",
        "number",
        "integer",
        "boolean",
        "null",
    )


class _Parameter(msgspec.Struct):
    name: str
    annotation: Any
    default: Any
    keyword: bool = False


class _Reader:
    """Reads one class; its methods share the names that an error message must tell."""

    def __init__(self, cls: type[Wrapper], plugin: str) -> None:
        self.cls = cls
        self.plugin = plugin

    def fail(self, where: str, message: str) -> PluginError:
        line = " ".join(message.split())
        return PluginError(f"plugin {self.plugin!r}: {self.cls.__name__}.{where}: {line}")

    def refuse(self, complaints: Iterator[Complaint]) -> None:
        for where, message in complaints:
            raise self.fail(where, message)

    def read(self) -> Contract:
        method = self.method()
        self.refuse(method_complaints(self.cls, method))
        function = inspect.unwrap(getattr(self.cls, method))
        hints = self.hints(function, method)
        takes = METHODS[method]
        is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        if is_async and takes != "call":
            raise self.fail(method, "is async; expected a plain method")
        parameters = self.parameters(function, method, hints)
        request = None
        if takes != "call":
            parameters, request = self.unpacked(parameters, method)
        answer, streams = self.answer(function, method, hints.get("return", Any), takes)
        inputs, rebuilds, spreads = self.inputs(parameters, method)
        output = self.marked(answer, f"{method} return")
        fields, result, definitions = self.fields(parameters, answer, inputs, output.type, method)
        required = [field.name for field in fields if field.required]
        self.refuse(example_complaints(self.cls, [field.name for field in fields], required))
        scalars = [field.name for field in fields if field.scalar]
        tensors = [field.name for field in fields if field.kind == "tensor"]
        self.refuse(batch_complaints(self.cls, method, scalars, tensors))
        return Contract(
            signature=Signature(
                takes=takes,
                streams=streams,
                inputs=fields,
                output=result,
                definitions=definitions,
                description=inspect.cleandoc(self.description(function)),
                version=str(self.cls.version),
            ),
            method=method,
            inputs=inputs,
            rebuilds=rebuilds,
            spreads=spreads,
            output=output,
            positional=tuple(p.name for p in parameters if not p.keyword),
            keywords=tuple(p.name for p in parameters if p.keyword),
            request=request,
            is_async=is_async,
            config=self.config(),
        )

    def method(self) -> str:
        found = [name for name in METHODS if callable(getattr(self.cls, name, None))]
        if len(found) != 1:
            what = " and ".join(found) or "none of them"
            raise self.fail(
                found[0] if found else "predict",
                f"has {what}; expected exactly one of predict, predict_batch, session",
            )
        return found[0]

    def hints(self, function: Callable[..., Any], method: str) -> dict[str, Any]:
        try:
            return typing.get_type_hints(function, include_extras=True)
        except Exception as exc:
            raise self.fail(method, f"its annotations cannot be resolved: {exc}") from exc

    def parameters(
        self, function: Callable[..., Any], method: str, hints: dict[str, Any]
    ) -> list[_Parameter]:
        found = []
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise self.fail(
                    f"{method}({parameter})", "inputs must be named; expected parameters by name"
                )
            if parameter.name not in hints:
                raise self.fail(
                    f"{method}({parameter.name})",
                    f"has no annotation; expected one, for instance `{parameter.name}: float`",
                )
            default = parameter.default
            found.append(
                _Parameter(
                    parameter.name,
                    hints[parameter.name],
                    msgspec.NODEFAULT if default is parameter.empty else default,
                    parameter.kind is parameter.KEYWORD_ONLY,
                )
            )
        return found

    def unpacked(self, parameters: list[_Parameter], method: str) -> tuple[list[_Parameter], Any]:
        """Turn ``requests: list[R]`` or ``inputs: Iterator[I]`` into the inputs of one request."""
        origin = typing.get_origin(parameters[0].annotation) if len(parameters) == 1 else None
        expected = "requests: list[R]" if method == "predict_batch" else "inputs: Iterator[I]"
        wanted = (list,) if method == "predict_batch" else STREAMS
        if origin not in wanted:
            raise self.fail(method, f"expected exactly one parameter, `{expected}`")
        (item, *_) = typing.get_args(parameters[0].annotation)
        if kind_of(item) == "json" and isinstance(item, type):
            fields = class_fields(item)
            if fields is not None:
                return [_Parameter(n, t, d, True) for n, t, d in fields], item
        return [_Parameter("input", item, msgspec.NODEFAULT)], None

    def answer(
        self, function: Callable[..., Any], method: str, annotation: Any, takes: Takes
    ) -> tuple[Any, bool]:
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if takes == "batch":
            if annotation is Any:
                return Any, False
            if origin is not list:
                raise self.fail(method, "expected the return annotation `list[R]`")
            return args[0], False
        generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        if origin in STREAMS or annotation in STREAMS:
            return (args[0] if args else Any), True
        if generates or takes == "session":
            if annotation is Any:
                return Any, True
            raise self.fail(method, "yields; expected the return annotation `Iterator[R]`")
        return annotation, False

    def inputs(
        self, parameters: list[_Parameter], method: str
    ) -> tuple[type[msgspec.Struct], dict[str, Rebuild], dict[str, Spread]]:
        """Make the Struct of all inputs, and say how to build them back and spread them again."""
        marked = {p.name: self.marked(p.annotation, f"{method}({p.name})") for p in parameters}
        try:
            struct = shadow(
                f"{self.cls.__name__}Inputs",
                [(p.name, marked[p.name].type, p.default) for p in parameters],
            )
        except (TypeError, ValueError) as exc:
            raise self.fail(method, str(exc)) from exc
        for p in parameters:
            if p.default is msgspec.NODEFAULT or field_of(p.annotation) is not None:
                continue
            if wrong := default_complaint(marked[p.name].type, p.default):
                raise self.fail(f"{method}({p.name})", f"its default does not fit: {wrong}")
        return (
            struct,
            {name: m.rebuild for name, m in marked.items() if m.rebuild is not None},
            {name: m.spread for name, m in marked.items() if m.spread is not None},
        )

    def marked(self, annotation: Any, where: str) -> Marked:
        try:
            return mark(annotation)
        except (TypeError, ValueError) as exc:
            raise self.fail(where, f"{exc}; expected a field or a type that msgspec knows") from exc

    def fields(
        self, parameters: list[_Parameter], answer: Any, inputs: Any, output: Any, method: str
    ) -> tuple[tuple[Field, ...], Field, dict[str, Any]]:
        try:
            schemas = json_schemas(inputs, output)
        # KeyError: a class that holds a field and itself.
        except (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError) as exc:
            where = next((w for w, t in self.types(inputs, output, method) if not sendable(t)), "")
            raise self.fail(where or method, f"a type has no JSON form: {exc}") from exc
        fields = tuple(
            describe(
                p.name,
                p.annotation,
                schemas.inputs[p.name],
                schemas.definitions,
                p.name in schemas.required,
            )
            for p in parameters
        )
        result = describe("output", answer, schemas.output, schemas.definitions)
        return fields, result, schemas.definitions

    def types(self, inputs: Any, output: Any, method: str) -> Iterator[tuple[str, Any]]:
        for info in msgspec.structs.fields(inputs):
            yield f"{method}({info.name})", info.type
        yield f"{method} return", output

    def description(self, function: Callable[..., Any]) -> str:
        own = self.cls.__doc__ if self.cls.__doc__ != Wrapper.__doc__ else ""
        return own or function.__doc__ or ""

    def config(self) -> Any:
        if self.cls.load is Wrapper.load:
            return dict
        hints = self.hints(self.cls.load, "load")
        hints.pop("return", None)
        config = next(iter(hints.values()), dict)
        if wrong := config_complaint(config):
            raise self.fail("load", wrong)
        return config
