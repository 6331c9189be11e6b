"""Answers in memory that a wrapper keeps are copied, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atomserve.codecs.references import settled


def same(held: list[Any]) -> list[bool]:
    """Say of each array whether it stayed where it was."""
    places = [array.ctypes.data for array in held]
    return [
        array.ctypes.data == place
        for array, place in zip(settled(held, never), places, strict=True)
    ]


def never(_: Any) -> bool:
    return False


KEPT = np.ones((4, 3))


@pytest.mark.parametrize(
    ("held", "stays"),
    [
        (lambda: [np.ones(3)], [True]),
        (lambda: [np.ones((4, 3))[:2]], [True]),
        (lambda: list(np.ones((4, 3))), [True] * 4),
        (lambda: [*np.ones((2, 3)), np.ones(3)], [True] * 3),
        (lambda: [KEPT], [False]),
        (lambda: [KEPT[:2]], [False]),
        (lambda: list(KEPT), [False] * 4),
        (lambda: [np.ones(3), KEPT[0]], [True, False]),
        (lambda: [KEPT.view().reshape(-1)[2:]], [False]),
    ],
)
def test_what_the_wrapper_keeps_is_copied(held: Any, stays: list[bool]) -> None:
    assert same(held()) == stays


def test_what_nobody_can_write_to_stays() -> None:
    fixed = np.ones((2, 3))
    fixed.flags.writeable = False
    assert same([fixed, fixed[0]]) == [True, True]


def test_what_is_spared_stays() -> None:
    held = [KEPT[0]]
    place = held[0].ctypes.data
    assert settled(held, lambda root: root is KEPT)[0].ctypes.data == place
    view = held[0]
    assert settled([view], lambda root: root is KEPT)[0] is view


def test_other_answers_stay_as_they_are() -> None:
    held: list[Any] = [1, "a", None, {"x": [1]}]
    assert settled(list(held), never) == held
