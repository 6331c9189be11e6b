"""Make the module names of AIGES resolve to the shim, for as long as that is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import ModuleType

from atomserve.compat.finder import ShimFinder

SHIM = "atomserve.compat.aiges.shim"
NAMES = ("aiges", "aiges_embed", "python_wrapper")


@contextmanager
def installed(*, prefer_real: bool = False, local: Sequence[str] = ()) -> Iterator[None]:
    """Make the names of AIGES mean the shim within this context.

    Where ``prefer_real`` says so and PyPI's ``aiges`` is there, it is used instead, and
    ``aiges_embed`` with it: the two share their objects. ``local`` names are left alone. What was
    imported under these names before is set aside and comes back afterwards.
    """
    finder = ShimFinder(SHIM, [name for name in _wanted(prefer_real) if name not in local])
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
