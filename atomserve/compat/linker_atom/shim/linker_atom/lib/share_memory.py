"""Parts of files that other processes write: read, never mapped."""

from atomserve.compat.linker_atom.shim.linker_atom.lib.exception import VqlError
from atomserve.compat.linker_atom.sources import in_use
from atomserve.errors import AtomError


class MmapManager:
    """A file below the folders that the operator allows; upstream's options mean nothing here."""

    def __init__(self, path: str, *_: object, **__: object) -> None:
        self.path = path

    def read(self, position: int, size: int) -> bytes:
        """Return ``size`` bytes from ``position``.

        Raises:
            VqlError: 503, they may not be read or are not there.
        """
        part = {"path": self.path, "position": position, "size": size}
        try:
            return bytes(in_use().bytes_of({"mmap": part}))
        except (AtomError, ValueError) as exc:
            raise VqlError(503) from exc
