"""``atomserve config``: print every setting with its origin."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from atomserve.cli.flags import Loaded, with_settings


@with_settings
def config(
    loaded: Loaded,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> int:
    """Print every setting with its value and where it comes from.

    It reads what `atomserve run` would: flags, then the environment, then the settings file.

    Try:

    - `atomserve config`
    - `atomserve config --config production.toml --json`
    """
    from atomserve.cli.terminal import warn
    from atomserve.configuration.load import explain

    found = explain(loaded)
    for warning in loaded.warnings:
        warn(warning)
    if as_json:
        rows = {row.path: {"value": row.value, "origin": row.origin} for row in found}
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    from atomserve.cli.terminal import console, table

    rows_for_people = [[row.path, row.value, row.origin] for row in found]
    console().print(table(["setting", "value", "origin"], rows_for_people))
    return 0
