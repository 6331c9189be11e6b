"""Sealed models, in the place of upstream's closed format for encrypted ones."""

import os
from typing import BinaryIO, NoReturn

from atomserve import sealed


class ModelProtector:
    """Opens model files that `atomserve seal` has encrypted.

    Upstream's own format is closed source: such files have to be decrypted there once, and sealed.
    ``key`` is a key, or the path of the file that holds it.
    """

    def __init__(self, key: bytes | str | os.PathLike[str]) -> None:
        self._key = key if isinstance(key, bytes) else sealed.key_from_file(key)

    def open(self, path: str | os.PathLike[str]) -> BinaryIO:
        """Open a sealed file, which is decrypted as it is read; raises as `sealed.open` does."""
        return sealed.open(path, self._key)

    def read(self, path: str | os.PathLike[str]) -> bytes:
        """Return the whole content of a sealed file."""
        with self.open(path) as file:
            return file.read()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"ModelProtector.{name} is not supplied, since upstream's is closed source: seal the "
            "model with `atomserve seal` and read it with ModelProtector(key_file).open(path)"
        )
