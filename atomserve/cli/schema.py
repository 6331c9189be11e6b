"""``atomserve schema``: print what a plugin takes and gives, for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from atomserve.signature import Signature


class Format(StrEnum):
    """The forms that a signature can be printed in."""

    openapi = "openapi"
    json = "json"
    json_schema = "json-schema"
    athena = "athena"
    athena_v2 = "athena-v2"


FORMS = (
    "OpenAPI 3.1; the signature itself; JSON Schema; of an AIGES wrapper the SDK's document, "
    "or one with all that its fields say."
)


def schema(
    plugin: Annotated[str, typer.Argument(help="As for `atomserve run --plugins`.")],
    form: Annotated[Format, typer.Option("--format", help=FORMS)] = Format.openapi,
) -> int:
    """Print what a plugin takes and gives: OpenAPI, or another form. It is imported, not loaded.

    Try:

    - `atomserve schema ocr > openapi.json`
    - `atomserve schema ./model.py --format json-schema`
    - `atomserve schema aiges:./wrapper.py --format athena`
    """
    import msgspec

    from atomserve.cli.sources import aiges_path

    path = aiges_path(plugin)
    with redirect_stdout(sys.stderr):  # what a plugin prints as it is imported is no JSON
        if path is None:
            found = of_model(plugin, form)
        elif form in {Format.json, Format.openapi}:
            with released():
                found = of_model(plugin, form)
        else:
            found = of_aiges(path, form)
    print(msgspec.json.format(msgspec.json.encode(found)).decode())
    return 0


def of_model(plugin: str, form: Format) -> dict[str, Any]:
    """Describe a plugin as it would be served.

    Raises `PluginError` if it cannot be found, and `ConfigError` for a form of AIGES.
    """
    import msgspec

    from atomserve.cli.sources import find
    from atomserve.errors import ConfigError
    from atomserve.surfaces import openapi

    if form in {Format.athena, Format.athena_v2}:
        raise ConfigError(f"--format {form}: is for AIGES wrappers, aiges:path/to/wrapper.py")
    found = find(plugin)
    name, signature = found.model.name, found.model.make_runner().signature
    if form is Format.json:
        return {"name": name, **msgspec.to_builtins(signature)}
    if form is Format.json_schema:
        return json_schema(name, signature)
    return openapi.document(
        {name: signature},
        prefix=found.settings.prefix,
        title=name,
        version=signature.version,
    )


@contextmanager
def released() -> Iterator[None]:
    """Give the process back that an AIGES wrapper takes when it is prepared."""
    from atomserve.compat.aiges import serving

    try:
        yield
    finally:
        serving.release()


def of_aiges(path: str, form: Format) -> dict[str, Any]:
    """Describe the Athena requests of an AIGES wrapper.

    Raises `PluginError` if it cannot be imported.
    """
    from atomserve.compat.aiges import documents
    from atomserve.compat.aiges.legacy_schema import legacy_schema
    from atomserve.compat.aiges.loader import loaded
    from atomserve.compat.aiges.schema import schema_v2

    written = {
        Format.athena: legacy_schema,
        Format.athena_v2: schema_v2,
        Format.json_schema: documents.json_schema,
    }
    with loaded(path) as found:
        return written[form](found.declared)


def json_schema(name: str, signature: Signature) -> dict[str, Any]:
    """Return a JSON Schema whose definitions ``request`` and ``response`` are the model's."""
    from atomserve.schemas import REFERENCE

    request = {
        "type": "object",
        "properties": {field.name: field.schema for field in signature.inputs},
        "required": [field.name for field in signature.inputs if field.required],
    }
    own = {"request": request, "response": signature.output.schema}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "$defs": signature.definitions | own,
    }
    found: dict[str, Any] = moved(document, REFERENCE.format(name=""), "#/$defs/")
    return found


def moved(node: Any, before: str, after: str) -> Any:
    """Return a copy of a schema whose references begin with ``after`` instead of ``before``."""
    if isinstance(node, list):
        return [moved(item, before, after) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: after + value.removeprefix(before)
        if key == "$ref" and isinstance(value, str)
        else moved(value, before, after)
        for key, value in node.items()
    }
