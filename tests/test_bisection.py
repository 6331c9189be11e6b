"""How a failing batch is cut, with no wrapper in sight."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve.backends.bisection import Parts, budget


def run(size: int, guilty: Collection[int], *, bisect: bool = True) -> tuple[set[int], list[int]]:
    """Return who failed, and how many were in each call."""
    parts = Parts(range(size), bisect=bisect)
    failed: set[int] = set()
    calls = []
    while (part := parts.take()) is not None:
        parts.ran()
        calls.append(len(part))
        if set(part) & set(guilty) and not parts.split(part):
            failed |= set(part)
    return failed, calls


@pytest.mark.parametrize("guilty", range(32))
def test_one_of_32_takes_11_calls_in_6_rounds(guilty: int) -> None:
    failed, calls = run(32, {guilty})
    assert failed == {guilty}
    assert len(calls) == 11
    assert len(set(calls)) == 6


@given(st.integers(1, 200), st.data())
def test_one_or_two_guilty_are_found_whatever_the_size(size: int, data: st.DataObject) -> None:
    guilty = data.draw(st.sets(st.integers(0, size - 1), max_size=2))
    assert run(size, guilty)[0] == guilty


@given(st.integers(1, 200), st.data())
def test_the_guilty_always_fail_and_the_calls_are_bounded(size: int, data: st.DataObject) -> None:
    guilty = data.draw(st.sets(st.integers(0, size - 1)))
    failed, calls = run(size, guilty)
    assert guilty <= failed
    assert len(calls) <= budget(size)


def test_a_batch_that_may_not_be_split_runs_once() -> None:
    assert run(4, {1}, bisect=False) == ({0, 1, 2, 3}, [4])


@pytest.mark.parametrize(("size", "calls"), [(1, 3), (2, 7), (5, 15), (32, 23), (33, 27)])
def test_the_budget_grows_with_the_logarithm(size: int, calls: int) -> None:
    assert budget(size) == calls
