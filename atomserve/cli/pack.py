"""``atomserve pack``: put a project into one file, the same for the same content."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pack(
    folder: Annotated[Path, typer.Argument(help="A folder with a wrapper.py or a pyproject.toml.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; FOLDER.tar.gz if unset."),
    ] = None,
) -> int:
    """Put a project into a tar.gz that depends on nothing but its files' names and content.

    Caches, virtual environments, logs and version control stay outside.

    Try:

    - `atomserve pack music`
    - `atomserve pack music -o build/music.tar.gz`
    """
    from atomserve.cli.archives import files_of, write_archive
    from atomserve.errors import ConfigError

    folder = folder.absolute()
    target = (output or Path(f"{folder.name}.tar.gz")).absolute()
    places = ("wrapper.py", "wrapper/wrapper.py", "pyproject.toml")
    if not any((folder / place).is_file() for place in places):
        raise ConfigError(f"{folder}: there is neither a wrapper.py nor a pyproject.toml")
    files = [file for file in files_of(folder) if file != target]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_archive(target, folder, files)
    print(f"Wrote {target}: files {len(files)}, bytes {target.stat().st_size}")
    return 0
