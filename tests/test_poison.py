"""Guilty requests are remembered for a while, and not more of them than there is room for."""

from __future__ import annotations

import pytest

from atomserve.engine.jobs import Payload
from atomserve.engine.poison import MOST, REMEMBERED, Poison


class Unread:
    """A large body that nobody may read."""

    def __init__(self, length: int) -> None:
        self._length = length

    @property
    def data(self) -> memoryview:
        pytest.fail("it was read")

    def __len__(self) -> int:
        return self._length

    def release(self) -> None:
        pass


def raw(body: object) -> Payload:
    return Payload(form="raw", body=body)


def test_a_guilty_request_is_refused_for_a_while() -> None:
    poison = Poison()
    assert not poison
    poison.add(raw(b"one"), 100.0)
    assert poison.holds(raw(b"one"), 100.0 + REMEMBERED - 1)
    assert not poison.holds(raw(b"two"), 100.0)
    assert not poison.holds(raw(b"one"), 100.0 + REMEMBERED)
    assert not poison


def test_the_oldest_makes_room() -> None:
    poison = Poison()
    for number in range(MOST + 1):
        poison.add(raw(b"%d" % number), float(number) / MOST)
    assert len(poison) == MOST
    assert not poison.holds(raw(b"0"), 1.0)
    assert poison.holds(raw(b"1"), 1.0)


def test_one_that_is_found_again_is_remembered_from_then() -> None:
    poison = Poison()
    poison.add(raw(b"one"), 0.0)
    poison.add(raw(b"two"), 1.0)
    poison.add(raw(b"one"), 2.0)
    assert not poison.holds(raw(b"two"), 1.0 + REMEMBERED)
    assert poison.holds(raw(b"one"), 1.0 + REMEMBERED)
    assert not poison.holds(raw(Unread(3)), 2.0 + REMEMBERED)


def test_only_requests_of_the_same_form_and_length_are_read() -> None:
    poison = Poison()
    poison.add(raw(b"one"), 0.0)
    assert not poison.holds(raw(Unread(4)), 0.0)
    assert not poison.holds(Payload(form="npy", body=Unread(3)), 0.0)


def test_another_form_of_the_answer_makes_no_other_request() -> None:
    poison = Poison()
    poison.add(raw(b"one"), 0.0)
    other = Payload(form="raw", body=b"one", answer="media", answer_type="image/png")
    assert poison.holds(other, 0.0)


def test_what_the_codec_will_refuse_is_not_remembered() -> None:
    poison = Poison()
    poison.add(Payload(body=b"{"), 0.0)
    assert not poison
    poison.add(Payload(body=b"{}"), 0.0)
    assert not poison.holds(Payload(body=b"{x"), 0.0)
