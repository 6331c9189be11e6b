"""Make the module names of linker_atom resolve to the shim, until the process ends."""

from __future__ import annotations

import sys

from atomserve.compat.finder import ShimFinder

SHIM = "atomserve.compat.linker_atom.shim"
NAMES = ("linker_atom",)


def install() -> None:
    """Let ``linker_atom`` mean the shim from now on, even where upstream's package is installed."""
    sys.meta_path.insert(0, ShimFinder(SHIM, NAMES))
