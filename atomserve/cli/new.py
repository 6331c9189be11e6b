"""``atomserve new``: write the project of a plugin."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

TEMPLATE = Path(__file__).with_name("template")
NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")


def new(
    name: Annotated[str, typer.Argument(help="What the plugin will be called: lower-case words.")],
    path: Annotated[
        Path, typer.Option("--path", metavar="DIR", help="Where the project's folder goes.")
    ] = Path(),
) -> int:
    """Write the project of a new plugin: a package, its metadata, its test.

    Try:

    - `atomserve new sentiment`
    - `atomserve new image-size --path plugins`
    """
    from importlib.metadata import version

    from atomserve.errors import ConfigError

    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} is no name for a plugin: write lower-case words, image-size")
    folder = path / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name another plugin, or another --path")
    words = re.split("[_-]", name)
    module = f"atomserve_{'_'.join(words)}"
    values = {
        "name": name,
        "distribution": f"atomserve-{'-'.join(words)}",
        "module": module,
        "class_name": "".join(word.capitalize() for word in words),
        "version": version("atomserve"),
    }
    for source in sorted(TEMPLATE.rglob("*.in")):
        relative = str(source.relative_to(TEMPLATE)).removesuffix(".in")
        target = folder / relative.replace("package", module, 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = Template(source.read_text(encoding="utf-8")).substitute(values)
        target.write_text(text, encoding="utf-8")
    print(f"Wrote {folder}. Next:\n")
    print(f"  pip install -e {folder}\n  atomserve check {name}\n  atomserve run --plugins {name}")
    return 0
