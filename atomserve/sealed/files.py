"""Whole files, sealed and unsealed: the result is there complete, or not at all."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from atomserve.errors import BadSeal
from atomserve.sealed import reader
from atomserve.sealed.form import LOG2_CHUNK, MOST_CHUNKS, SALT_LENGTH, Cipher
from atomserve.sealed.keys import checked


def seal(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    key: bytes,
    *,
    log2_chunk: int = LOG2_CHUNK,
) -> None:
    """Write the sealed form of ``source``, which stays, to ``target``.

    Raises:
        BadSeal: the source is too large for chunks of that size.
        ConfigError: ``key`` is none.
        MissingExtra: the extra ``sealed`` is not installed.
        OSError: a file cannot be read or written.
    """
    cipher = Cipher(checked(key), secrets.token_bytes(SALT_LENGTH), log2_chunk)
    with Path(source).open("rb") as file, _replacing(Path(target)) as out:
        # Nobody can read it without the key: who may read the source may have it.
        os.fchmod(out.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        out.write(cipher.header)
        following = file.read(cipher.chunk)
        for number in range(MOST_CHUNKS):
            plain, following = following, file.read(cipher.chunk)
            out.write(cipher.seal(number, not following, plain))
            if not following:
                return
        raise BadSeal(f"{source}: too large for chunks of {cipher.chunk} bytes")


def unseal(source: str | os.PathLike[str], target: str | os.PathLike[str], key: bytes) -> None:
    """Write the plain content of ``source`` to ``target``, for its owner alone.

    Nothing is left if that fails. Raises what `sealed.open` and reading raise.
    """
    with reader.open(source, key) as file, _replacing(Path(target)) as out:
        buffer = memoryview(bytearray(1 << LOG2_CHUNK))
        while read := file.readinto(buffer):
            out.write(buffer[:read])


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the place of ``target`` at the end, or vanishes on a failure."""
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(number, "wb") as out:
            yield out
            out.flush()
            os.fsync(number)
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
