"""Guilty requests are remembered for a while, and not more of them than there is room for."""

from __future__ import annotations

from atomserve.engine.poison import MOST, REMEMBERED, Poison


def test_a_guilty_request_is_refused_for_a_while() -> None:
    poison = Poison()
    assert not poison
    poison.add(b"one", 100.0)
    assert poison.holds(b"one", 100.0 + REMEMBERED - 1)
    assert not poison.holds(b"two", 100.0)
    assert not poison.holds(b"one", 100.0 + REMEMBERED)
    assert not poison


def test_the_oldest_makes_room() -> None:
    poison = Poison()
    for number in range(MOST + 1):
        poison.add(b"%d" % number, float(number) / MOST)
    assert len(poison) == MOST
    assert not poison.holds(b"0", 1.0)
    assert poison.holds(b"1", 1.0)


def test_one_that_is_found_again_is_remembered_from_then() -> None:
    poison = Poison()
    poison.add(b"one", 0.0)
    poison.add(b"two", 1.0)
    poison.add(b"one", 2.0)
    assert not poison.holds(b"two", 1.0 + REMEMBERED)
    assert poison.holds(b"one", 1.0 + REMEMBERED)
