"""``atomserve new``: write the project of a plugin."""

from __future__ import annotations

import keyword
import re
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer

TEMPLATES = Path(__file__).with_name("templates")
NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
SERVICE = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*")


class Kind(StrEnum):
    """What a project holds."""

    plugin = "plugin"
    aiges = "aiges"


def new(
    name: Annotated[str, typer.Argument(help="What the plugin will be called: lower-case words.")],
    path: Annotated[
        Path, typer.Option("--path", metavar="DIR", help="Where the project's folder goes.")
    ] = Path(),
    kind: Annotated[
        Kind, typer.Option("--kind", help="A plugin, or a wrapper.py of AIGES with its image.")
    ] = Kind.plugin,
) -> int:
    """Write the project of a new plugin: a package, its metadata, its test.

    Try:

    - `atomserve new sentiment`
    - `atomserve new image-size --path plugins`
    - `atomserve new ocr --kind aiges`
    """
    from atomserve.errors import ConfigError

    if kind is Kind.aiges:
        folder = new_aiges(name, path)
        print(f"Wrote {folder}. Next:\n")
        print(f"  atomserve check aiges:{folder}\n  atomserve run --plugins aiges:{folder}")
        return 0
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} is no name for a plugin: write lower-case words, image-size")
    words = re.split("[_-]", name)
    module = f"atomserve_{'_'.join(words)}"
    values = {
        "name": name,
        "distribution": f"atomserve-{'-'.join(words)}",
        "module": module,
        "class_name": "".join(word.capitalize() for word in words),
    }
    folder = written(kind, path / name, values, package=module)
    print(f"Wrote {folder}. Next:\n")
    print(f"  pip install -e {folder}\n  atomserve check {name}\n  atomserve run --plugins {name}")
    return 0


def new_aiges(name: str, path: Path) -> Path:
    """Write the project of an AIGES wrapper into a folder of ``path``, and return the folder.

    Raises `ConfigError` for a name that does not suit, and where something is in the way.
    """
    from atomserve.errors import ConfigError

    if not SERVICE.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a service: write letters and digits, music-v2")
    return written(Kind.aiges, path / name, {"name": name})


def written(kind: Kind, folder: Path, values: dict[str, str], *, package: str = "") -> Path:
    """Fill in the template of ``kind``, and return the folder it was written to."""
    from importlib.metadata import version

    from atomserve.errors import ConfigError

    if folder.exists():
        raise ConfigError(f"{folder} exists already; name another plugin, or another --path")
    values = values | {"version": version("atomserve")}
    template = TEMPLATES / kind
    for source in sorted(path for path in template.rglob("*") if path.is_file()):
        relative = source.relative_to(template)
        target = folder / str(relative).removesuffix(".in").replace("package", package, 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".in":
            text = Template(source.read_text(encoding="utf-8")).substitute(values)
            target.write_text(text, encoding="utf-8")
        else:
            target.write_bytes(source.read_bytes())
    return folder
