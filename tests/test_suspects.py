"""Which job killed its worker: found with three lost workers among any number, and nobody else."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve.context import Context
from atomserve.engine.jobs import Job, Payload
from atomserve.engine.suspects import MOST_KILLS, Part, judge, judge_each


class Told:
    """A reply that only keeps what it is told."""

    ended = False


def jobs(count: int) -> list[Job]:
    return [Job(Payload(), Context(), cast("Any", Told())) for _ in range(count)]


def run(waiting: list[Job], deadly: set[Job]) -> tuple[list[Job], list[Job], list[Job], int]:
    """Run ``waiting`` as one batch, then part by part; return the answered, found and given up."""
    answered: list[Job] = []
    guilty: list[Job] = []
    unclear: list[Job] = []
    kills = 0
    batches = [waiting]
    while batches:
        batch = batches.pop(0)
        if not deadly.intersection(batch):
            answered += batch
            continue
        kills += 1
        verdict = judge(batch, len(batch))
        guilty += verdict.guilty
        unclear += verdict.unclear
        parts: dict[Any, list[Job]] = {}
        for job in verdict.again:
            parts.setdefault(job.key, []).append(job)
        batches = [*parts.values(), *batches]
    return answered, guilty, unclear, kills


@given(st.integers(1, 300), st.data())
def test_one_guilty_job_is_found_with_three_kills_and_all_others_are_answered(
    count: int, data: st.DataObject
) -> None:
    batch = jobs(count)
    killer = batch[data.draw(st.integers(0, count - 1))]
    answered, guilty, unclear, kills = run(batch, {killer})
    assert guilty == [killer]
    assert not unclear
    assert set(answered) == set(batch) - {killer}
    assert kills == MOST_KILLS


@given(st.integers(2, 100), st.data())
def test_with_several_guilty_nobody_innocent_is_blamed_and_everyone_ends(
    count: int, data: st.DataObject
) -> None:
    batch = jobs(count)
    killers = {batch[n] for n in data.draw(st.sets(st.integers(0, count - 1), min_size=2))}
    answered, guilty, unclear, _ = run(batch, killers)
    assert set(guilty) <= killers
    assert sorted(map(id, [*answered, *guilty, *unclear])) == sorted(map(id, batch))


def test_no_more_than_three_deaths_are_excused() -> None:
    batch = jobs(4)
    assert judge(batch, 4).excused
    assert judge(batch[:2], 2).excused
    assert judge(batch[:1], 1).excused
    assert not judge(batch[1:2], 1).excused


def test_jobs_that_nobody_can_tell_apart_run_once_more() -> None:
    batch = jobs(3)
    first = judge_each(batch)
    assert list(first.again) == batch
    assert len({job.key for job in batch}) == 3
    assert all(isinstance(job.key, Part) for job in batch)
    second = judge_each(batch)
    assert list(second.unclear) == batch
    assert not second.again
    assert not second.guilty


@pytest.mark.parametrize("count", [2, 5, 32])
def test_what_was_left_of_a_larger_batch_is_not_taken_for_alone(count: int) -> None:
    (left,) = jobs(1)
    judge([left], count)
    judge([left], count)
    assert not judge([left], count).guilty
