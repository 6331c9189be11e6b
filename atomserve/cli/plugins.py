"""``atomserve plugins``: list what is installed, without importing it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from atomserve.plugins import Installed


def plugins(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Import each one, in a process of its own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> int:
    """List the installed plugins; none is imported unless `--check` asks for it.

    What runs from files and modules, by a loader, is not installed: a last line names the loaders.

    Try:

    - `atomserve plugins`
    - `atomserve plugins --check --json`
    """
    from atomserve.plugins import APP_LOADERS, installed, loaders

    rows = [described(plugin, check=check) for plugin in installed()]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        from atomserve.cli.terminal import console, table

        columns = list(rows[0])
        console().print(table(columns, [[str(row[key]) for key in columns] for row in rows]))
    else:
        print("No plugin is installed. `atomserve new NAME` writes one.")
    if not as_json:
        models, apps = sorted(loaders()), sorted(APP_LOADERS)
        print(f"Loaders: of models {', '.join(models)}; of apps {', '.join(apps)}.")
    return 1 if check and any(row["state"] != "ok" for row in rows) else 0


def described(plugin: Installed, *, check: bool) -> dict[str, Any]:
    row = {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "target": plugin.value,
    }
    if plugin.rivals:
        row["name"] = f"{plugin.name} (also in {', '.join(plugin.rivals)})"
    if check:
        from atomserve.loading import probe
        from atomserve.wrapper import Wrapper

        state = probe(plugin, base=Wrapper)
        row["state"] = "ok" if state.ok else state.reason
    return row
