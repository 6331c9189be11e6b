"""Who else refers to an array's memory: CPython counts it, for views through their base."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def references(held: list[Any], number: int) -> int:
    """Count the references to ``held[number]``: `ALONE` means that only the list has one."""
    return sys.getrefcount(held[number])


ALONE = references([np.empty(0)], 0)


def settled(held: list[Any], spare: Callable[[Any], bool]) -> list[Any]:
    """Replace the arrays in ``held`` that somebody else may write to by copies, and return it.

    A wrapper may write its answers into the same memory each time. Views of what ``spare`` says
    yes to stay as they are.
    """
    doubtful = [n for n in range(len(held)) if _writeable(held[n]) and not spare(held[n].base)]
    roots: dict[int, list[Any]] = {}
    views: dict[int, int] = {}
    for n in doubtful:
        key = id(held[n].base)
        roots.setdefault(key, [held[n].base])
        views[key] = views.get(key, 0) + 1
    kept = {
        key
        for key, root in roots.items()
        if root[0] is not None and references(root, 0) > ALONE + views[key]
    }
    for n in doubtful:
        if references(held, n) > ALONE or id(held[n].base) in kept:
            held[n] = held[n].copy()
    return held


def _writeable(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.flags.writeable
