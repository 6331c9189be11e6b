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

    from atomserve.backends.runner import Runner
    from atomserve.cli.sources import find

    found = find(plugin)
    signature = Runner(found.cls, found.contract, model=found.name, config={}).signature
    if form is Format.json:
        document = {"name": found.name, **msgspec.to_builtins(signature)}
    else:
        from atomserve.surfaces import openapi

        document = openapi.document(
            {found.name: signature},
            prefix=found.settings.prefix,
            title=found.name,
            version=signature.version,
        )
    print(msgspec.json.format(msgspec.json.encode(document)).decode())
    return 0
