"""Modules of a folder of ours found under top-level names, as existing code imports them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


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
    """Finds ``names`` in the package ``shim``; a name that is not there does not exist."""

    def __init__(self, shim: str, names: Collection[str]) -> None:
        self.names = frozenset(names)
        self._shim = shim

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.names:
            return None
        home = f"{self._shim}.{fullname}"
        try:
            found = importlib.util.find_spec(home)
        except ModuleNotFoundError:  # of a parent
            return None
        if found is None:
            return None
        package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _Alias(home), origin=found.origin, is_package=package)
