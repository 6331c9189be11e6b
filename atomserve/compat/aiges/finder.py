"""Make the module names of AIGES resolve to the shim, for as long as that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

SHIM = "atomserve.compat.aiges.shim"
NAMES = ("aiges", "aiges_embed", "python_wrapper")


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
    """Finds the names it is made for in the shim; a name that is not there does not exist."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.names:
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


@contextmanager
def installed(*, prefer_real: bool = False, local: Sequence[str] = ()) -> Iterator[None]:
    """Make the names of AIGES mean the shim within this context.

    Where ``prefer_real`` says so and PyPI's ``aiges`` is there, it is used instead, and
    ``aiges_embed`` with it: the two share their objects. ``local`` names are left alone. What was
    imported under these names before is set aside and comes back afterwards.
    """
    finder = ShimFinder([name for name in _wanted(prefer_real) if name not in local])
    before = _taken(finder.names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _taken(finder.names)
        sys.modules.update(before)


def _wanted(prefer_real: bool) -> list[str]:
    if not prefer_real:
        return list(NAMES)
    specs = {name: PathFinder.find_spec(name) for name in NAMES}
    # Without an origin it is a mere folder of that name.
    real = {name for name, spec in specs.items() if spec is not None and spec.origin is not None}
    if "aiges" in real:
        real.add("aiges_embed")
    return [name for name in NAMES if name not in real]


def _taken(names: frozenset[str]) -> dict[str, ModuleType]:
    ours = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in ours}
