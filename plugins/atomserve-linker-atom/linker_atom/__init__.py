"""The package `linker_atom`, as services know it."""

from atomserve.compat.linker_atom.shim.linker_atom import __version__

__all__ = ["__version__"]
