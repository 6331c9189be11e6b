"""``atomserve seal`` and ``unseal``: encrypt a file, such as a model's weights, and get it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

SUFFIX = ".sealed"

File = Annotated[Path, typer.Argument(metavar="FILE", help="What to read; it stays.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="K", help="File of the key: 32 bytes, raw, hex or base64."),
]
KeyVariable = Annotated[
    str | None,
    typer.Option("--key-variable", metavar="NAME", help="Environment variable of the key."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def seal(
    file: File,
    key_file: KeyFile = None,
    key_variable: KeyVariable = None,
    output: Output = None,
    force: Force = False,
) -> int:
    """Encrypt FILE into FILE.sealed, so that it cannot be read, altered or cut without its key.

    `atomserve.sealed.open` reads it without writing it to disk. Whoever has the key can read it:
    keep that in a file that only the server may read, or in its environment.

    Try:

    - `head -c 32 /dev/urandom > model.key`
    - `atomserve seal model.onnx --key-file model.key`
    """
    from atomserve import sealed

    target = output or file.with_name(file.name + SUFFIX)
    return written(sealed.seal, file, target, key(key_file, key_variable), force)


def unseal(
    file: File,
    key_file: KeyFile = None,
    key_variable: KeyVariable = None,
    output: Output = None,
    force: Force = False,
) -> int:
    """Decrypt FILE.sealed into FILE, for its owner alone; nothing is written if it was altered.

    Try:

    - `atomserve unseal model.onnx.sealed --key-file model.key`
    - `atomserve unseal model.onnx.sealed --key-variable MODEL_KEY -o /run/model.onnx`
    """
    from atomserve import sealed
    from atomserve.errors import ConfigError

    if output is None and file.suffix != SUFFIX:
        raise ConfigError(f"{file}: its name does not end with {SUFFIX}; say where to with -o")
    target = output or file.with_suffix("")
    return written(sealed.unseal, file, target, key(key_file, key_variable), force)


def key(file: Path | None, variable: str | None) -> bytes:
    """Return the key, which no argument holds: every process may read those."""
    from atomserve import sealed
    from atomserve.errors import ConfigError

    if file is not None and variable is None:
        return sealed.key_from_file(file)
    if variable is not None and file is None:
        return sealed.key_from_variable(variable)
    raise ConfigError("say where the key is: --key-file K or --key-variable NAME")


def written(
    act: Callable[[Path, Path, bytes], None], file: Path, target: Path, key: bytes, force: bool
) -> int:
    """Write ``target``, and tell of it."""
    from atomserve.errors import ConfigError

    if target.exists() and not force:
        raise ConfigError(f"{target}: is there already; --force replaces it")
    try:
        act(file, target, key)
    except OSError as exc:
        raise ConfigError(f"{exc.filename or file}: {exc.strerror}") from exc
    print(f"Wrote {target}: bytes {target.stat().st_size}")
    return 0
