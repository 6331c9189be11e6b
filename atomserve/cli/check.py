"""``atomserve check``: load a plugin, run its examples, show its signature."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from atomserve.backends.servable import Servable
    from atomserve.signature import Field, Signature


def check(
    plugin: Annotated[str, typer.Argument(help="As for `atomserve run --plugins`.")],
) -> int:
    """Load a plugin in this process, run its examples and show its signature.

    The exit code is 0 when it may be served, and 1 when something is wrong with it.

    Try:

    - `atomserve check ocr`
    - `atomserve check ./model.py:Model`
    """
    from atomserve.cli.sources import find
    from atomserve.cli.terminal import complain
    from atomserve.errors import PluginError

    try:
        model = find(plugin).model
        runner = model.make_runner()
        show_signature(model.name, runner.signature)
        run(runner)
    except PluginError as exc:
        complain(str(exc))
        return 1
    return 0


def run(runner: Servable) -> None:
    """Load, run the examples and unload, and say how long each took."""
    start = time.perf_counter()
    runner.load()
    print(f"load: {time.perf_counter() - start:.2f} s")
    try:
        start = time.perf_counter()
        for number, example in enumerate(runner.examples(finish), 1):
            took = (time.perf_counter() - start) * 1000
            print(f"example {example.name or number}: ok, {took:.1f} ms")
            start = time.perf_counter()
    finally:
        runner.unload()
    print(f"{runner.model} may be served")


def finish(answer: object) -> object:
    """Run a coroutine to its end; anything else is an answer already."""
    import inspect

    import anyio

    if not inspect.isawaitable(answer):
        return answer

    async def wait() -> object:
        return await answer

    return anyio.run(wait)


def show_signature(name: str, signature: Signature) -> None:
    from atomserve.cli.terminal import console, table

    if signature.description:
        print(f"{name}: {signature.description.splitlines()[0]}")
    rows = [row("in", field) for field in signature.inputs]
    rows.append(row("out, many" if signature.streams else "out", signature.output))
    console().print(table(["", "name", "kind", "type", "needed"], rows))


def row(direction: str, field: Field) -> list[str]:
    needed = "" if direction != "in" else "yes" if field.required else "no"
    return [direction, field.name, field.kind, form(field), needed]


def form(field: Field) -> str:
    """Say in a few words what a value must be."""
    if field.kind == "tensor":
        sizes = ("?" if size < 0 else str(size) for size in field.dims or ())
        shape = "any shape" if field.dims is None else f"({', '.join(sizes)})"
        return f"{field.dtype} {shape}"
    return field.media_type or phrase(field.schema)


def phrase(schema: dict[str, Any]) -> str:
    """Write a JSON Schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(phrase(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"list of {phrase(schema['items'])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[word]:g}" for word, sign in bounds.items() if word in schema]
    return f"{schema.get('type', 'anything')} {', '.join(limits)}".strip()
