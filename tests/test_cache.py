"""What is kept of answers: never more bytes than may be, the longest unused goes, and its time."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve.engine.cache import OVERHEAD, PARTS, Cache
from atomserve.engine.jobs import Answer

KEYS = [bytes([n]) * 32 for n in range(6)]


def answer(size: int) -> Answer:
    return Answer(bytes(size), "")


@given(
    room=st.integers(1, 8 * PARTS * OVERHEAD),
    acts=st.lists(
        st.tuples(
            st.sampled_from(["put", "get"]),
            st.sampled_from(KEYS),
            st.integers(0, 3 * OVERHEAD),
            st.floats(0, 4),
        ),
        max_size=60,
    ),
)
def test_a_cache_holds_what_a_plain_list_of_its_rules_holds(
    room: int, acts: list[tuple[str, bytes, int, float]]
) -> None:
    cache, now = Cache(room, ttl=10.0), 0.0
    model: OrderedDict[bytes, tuple[Answer, int, float]] = OrderedDict()
    for act, key, size, later in acts:
        now += later
        if act == "put":
            given, cost = answer(size), size + OVERHEAD
            kept = cache.put(key, given, now)
            assert (kept is not None) == (cost <= room // PARTS)
            if kept is not None:
                model.pop(key, None)
                while sum(each[1] for each in model.values()) + cost > room:
                    model.popitem(last=False)
                model[key] = given, cost, now + 10.0
        else:
            found = cache.get(key, now)
            expected = model.get(key)
            if expected is not None and expected[2] <= now:
                del model[key]
                expected = None
            assert (found and found.answer) == (expected and expected[0])
            if expected is not None:
                model.move_to_end(key)
        assert cache.held == sum(each[1] for each in model.values()) <= room
        assert len(cache) == len(model)


def test_the_longest_unused_goes_first() -> None:
    cache = Cache(PARTS * 2 * OVERHEAD, ttl=60.0)
    size = OVERHEAD
    for n in range(PARTS):
        assert cache.put(bytes([n]), answer(size), 0.0)
    assert cache.get(bytes([0]), 1.0)
    assert cache.put(b"new", answer(size), 2.0)
    assert cache.get(bytes([1]), 3.0) is None
    assert cache.get(bytes([0]), 3.0)


def test_an_answer_has_its_time() -> None:
    cache = Cache(1024 * 1024, ttl=5.0)
    assert cache.put(b"k", answer(1), 100.0)
    found = cache.get(b"k", 104.9)
    assert found is not None
    assert found.until == 105.0
    assert cache.get(b"k", 105.0) is None
    assert (len(cache), cache.held) == (0, 0)


@pytest.mark.parametrize("size", [PARTS * 1000, 1])
def test_an_answer_that_would_drive_out_others_is_not_kept(size: int) -> None:
    cache = Cache(size, ttl=5.0)
    assert cache.put(b"k", answer(1001 - OVERHEAD), 0.0) is None
    assert cache.held == 0


def test_what_is_kept_lies_in_bytes_of_its_own() -> None:
    memory = bytearray(b"xxanswer")
    kept = Cache(1024 * 1024, ttl=5.0).put(
        b"k", Answer(memoryview(memory)[2:], "a/b", head=b"head "), 0.0
    )
    assert kept is not None
    assert kept.answer == Answer(b"head answer", "a/b")
    memory[:] = b"gone"
    assert kept.answer.body == b"head answer"


def test_a_cache_tells_how_full_it_is() -> None:
    cache = Cache(8192, ttl=5.0)
    cache.put(b"k", answer(100), 0.0)
    assert repr(cache) == f"<Cache: 1 answers, {100 + OVERHEAD} of 8192 bytes>"
