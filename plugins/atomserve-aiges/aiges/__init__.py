"""The package `aiges`, as wrappers know it."""

from atomserve.compat.aiges.shim.aiges import EXIT_SIG, __version__

__all__ = ["EXIT_SIG", "__version__"]
