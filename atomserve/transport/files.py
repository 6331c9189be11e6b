"""Files without a name that one process writes, and others map as they then stay."""

from __future__ import annotations

import fcntl
import mmap
import os

from atomserve.errors import ConfigError

_SEALS = "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL"


class SealedFile:
    """Takes bytes until it is sealed; its memory is shared by all that have it open.

    Raises:
        ConfigError: this system has no such files.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise ConfigError("resources need Linux (sealed memory files)")
        self.fd = os.memfd_create("atomserve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size = 0

    def __repr__(self) -> str:
        return f"<SealedFile: {self.size} bytes>"

    def write(self, piece: bytes) -> None:
        """Add ``piece`` at the end."""
        view = memoryview(piece)
        while view:
            written = os.write(self.fd, view)
            self.size += written
            view = view[written:]

    def seal(self) -> None:
        """Let nobody change it from now on."""
        seals = 0
        for name in _SEALS:
            seals |= getattr(fcntl, name)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    def close(self) -> None:
        """Close it here; whoever else has it open keeps it."""
        os.close(self.fd)


def mapped(fd: int, size: int) -> mmap.mmap:
    """Map a sealed file of ``size`` bytes for reading, and close ``fd``, also on failure.

    Raises:
        ValueError: it has another size, or is empty.
    """
    try:
        if os.fstat(fd).st_size != size:
            raise ValueError(f"a file of {size} bytes was announced")
        return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(fd)
