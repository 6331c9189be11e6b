"""Make the module name `linker_atom` resolve to the shim."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

SHIM = "atomserve.compat.linker_atom.shim"
NAME = "linker_atom"


class _Alias(Loader):
    """Gives a module of the shim a second name: both are one object."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._home)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just replaced it


class ShimFinder(MetaPathFinder):
    """Finds the package and its modules in the shim; what is not there does not exist."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != NAME:
            return None
        home = f"{SHIM}.{fullname}"
        try:
            found = importlib.util.find_spec(home)
        except ModuleNotFoundError:  # of a parent
            return None
        if found is None:
            return None
        package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _Alias(home), origin=found.origin, is_package=package)


def install() -> None:
    """Let `linker_atom` mean the shim from now on, in this process."""
    sys.meta_path.insert(0, ShimFinder())
