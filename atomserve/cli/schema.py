"""``atomserve schema``: print what a plugin takes and gives, for programs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """The forms that a signature can be printed in."""

    openapi = "openapi"
    json = "json"


def schema(
    plugin: Annotated[str, typer.Argument(help="As for `atomserve run --plugins`.")],
    form: Annotated[
        Format, typer.Option("--format", help="OpenAPI 3.1, or the signature itself.")
    ] = Format.openapi,
) -> int:
    """Print a plugin's OpenAPI document, or its signature as JSON. It is imported, not loaded.

    Try:

    - `atomserve schema ocr > openapi.json`
    - `atomserve schema ./model.py --format json`
    """
    import msgspec

    from atomserve.cli.sources import find

    found = find(plugin)
    name, signature = found.model.name, found.model.make_runner().signature
    if form is Format.json:
        document = {"name": name, **msgspec.to_builtins(signature)}
    else:
        from atomserve.surfaces import openapi

        document = openapi.document(
            {name: signature},
            prefix=found.settings.prefix,
            title=name,
            version=signature.version,
        )
    print(msgspec.json.format(msgspec.json.encode(document)).decode())
    return 0
