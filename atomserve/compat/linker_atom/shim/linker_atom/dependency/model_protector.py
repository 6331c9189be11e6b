"""Sealed models, in the place of upstream's closed format for encrypted ones."""

from typing import IO, Any, NoReturn


class ModelProtector:
    """Opens model files that `atomserve seal` has encrypted.

    Upstream's own format is closed source, and so is its key: such files have to be decrypted
    there once, and sealed. ``key`` is a key as `atomserve.sealed` takes it.
    """

    def __init__(self, key: Any = None) -> None:
        self.key = key

    def open(self, path: str) -> IO[bytes]:
        """Open a sealed file, which is decrypted as it is read; raises what `sealed` raises."""
        from atomserve import sealed

        file: IO[bytes] = sealed.open(path, self.key)
        return file

    def read(self, path: str) -> bytes:
        """Return the whole content of a sealed file."""
        with self.open(path) as file:
            return file.read()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"ModelProtector.{name} is not supplied, since upstream's is closed source: seal the "
            "model with `atomserve seal` and read it with ModelProtector(key).open(path)"
        )
