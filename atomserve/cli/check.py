"""``atomserve check``: load a plugin, run its examples, show its signature."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from atomserve.backends.servable import Servable
    from atomserve.signature import Field, Signature


class Mode(StrEnum):
    """The ways in which an AIGES wrapper is asked."""

    once = "once"
    callback = "async"
    stream = "stream"


def check(
    plugin: Annotated[str, typer.Argument(help="As for `atomserve run --plugins`.")],
    *,
    mode: Annotated[
        list[Mode] | None,
        typer.Option("--mode", help="Of an AIGES wrapper, try this alone; else all it has."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="KEY=VALUE|KEY=@FILE", help="Send an AIGES wrapper this."
        ),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="Ask an AIGES wrapper for this."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds for each result that an AIGES wrapper calls back.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> int:
    """Load a plugin in this process, run its examples and show its signature.

    An AIGES wrapper is called with its fields' test values, as it is when it is served, and what
    it answers is judged by the nine rules of its SDK.

    An application that is hosted is started and stopped.

    The exit code is 0 when it may be served, and 1 when something is wrong with it.

    Try:

    - `atomserve check ocr`
    - `atomserve check ./model.py:Model`
    - `atomserve check aiges:./wrapper.py`
    - `atomserve check aiges:./wrapper.py --mode once --input image=@cat.jpg`
    - `atomserve check asgi:package.module:app`
    """
    from atomserve.cli.sources import aiges_path, app_source
    from atomserve.cli.terminal import complain
    from atomserve.errors import ConfigError, MissingExtra, PluginError

    path = aiges_path(plugin)
    if (mode or inputs or params) and path is None:
        option = "--mode" if mode else "--input" if inputs else "--param"
        raise ConfigError(f"{option}: is for AIGES wrappers, aiges:path/to/wrapper.py")
    try:
        if (app := app_source(plugin)) is not None:
            from atomserve.cli.check_app import check_app

            return check_app(app, as_json=as_json)
        if path is None:
            return check_class(plugin, as_json=as_json)
        from atomserve.cli.check_aiges import Asked, check_aiges

        modes = [each.value for each in mode or ()]
        return check_aiges(path, Asked(modes, inputs or (), params or (), timeout), as_json=as_json)
    except (PluginError, MissingExtra) as exc:
        if as_json:
            print(json.dumps({"ok": False, "failure": str(exc)}, indent=2, ensure_ascii=False))
        else:
            complain(str(exc))
        return 1


def check_class(plugin: str, *, as_json: bool) -> int:
    """Load a wrapper class and run its examples.

    Raises `PluginError` when it may not be served.
    """
    from atomserve.cli.sources import find

    if as_json:
        with redirect_stdout(sys.stderr):  # whatever the plugin prints is no JSON
            model = find(plugin).model
            runner = model.make_runner()
            report_steps = [{"what": what, "seconds": took} for what, took in steps(runner)]
        report = {"ok": True, "name": model.name, "steps": report_steps}
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return 0
    model = find(plugin).model
    runner = model.make_runner()
    show_signature(model.name, runner.signature)
    for what, seconds in steps(runner):
        took = f"{seconds:.2f} s" if what == "load" else f"ok, {seconds * 1000:.1f} ms"
        print(f"{what}: {took}")
    print(f"{model.name} may be served")
    return 0


def steps(runner: Servable) -> Iterator[tuple[str, float]]:
    """Load, run the examples and unload; yield what was done, and how long it took."""
    start = time.perf_counter()
    runner.load()
    yield "load", time.perf_counter() - start
    try:
        start = time.perf_counter()
        for number, example in enumerate(runner.examples(finish), 1):
            yield f"example {example.name or number}", time.perf_counter() - start
            start = time.perf_counter()
    finally:
        runner.unload()


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
