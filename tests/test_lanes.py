"""The bounded queue in which jobs wait: order, bound, expiry, withdrawal."""

from typing import Any

import pytest

from atomserve.context import Context
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.lanes import Lane
from atomserve.errors import AtomError, DeadlineExceeded, Draining, Overloaded


class Heard:
    """A reply that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.ended = False

    def answer(self, answer: Answer) -> None:
        self.heard.append(answer)

    def end(self) -> None:
        self.ended = True

    def fail(self, error: AtomError) -> None:
        self.heard.append(error)
        self.ended = True


def job(deadline: float | None = None, request_id: str = "") -> Job:
    context = Context(model="m", request_id=request_id, deadline=deadline)
    return Job(Payload(), context, Heard())


def heard(of: Job) -> list[Any]:
    assert isinstance(of.reply, Heard)
    return of.reply.heard


@pytest.fixture
def lane() -> Lane:
    return Lane("m", 3)


def test_jobs_leave_in_the_order_they_came(lane: Lane) -> None:
    jobs = [job() for _ in range(3)]
    for each in jobs:
        lane.offer(each)
    assert lane.take(2, 0.0) == jobs[:2]
    assert lane.take(2, 0.0) == jobs[2:]
    assert lane.take(2, 0.0) == []


def test_a_full_lane_refuses(lane: Lane) -> None:
    for _ in range(3):
        lane.offer(job())
    assert lane.full
    with pytest.raises(Overloaded, match="3 requests wait for model 'm'") as caught:
        lane.offer(job())
    assert caught.value.retry_after == 1.0
    assert len(lane) == 3


def test_an_expired_job_fails_without_being_run(lane: Lane) -> None:
    late, live = job(deadline=1.0), job(deadline=3.0)
    lane.offer(late)
    lane.offer(live)
    assert lane.take(5, 2.0) == [live]
    assert [type(error) for error in heard(late)] == [DeadlineExceeded]


def test_an_expired_job_takes_no_place_in_a_batch(lane: Lane) -> None:
    lane.offer(job(deadline=1.0))
    live = job()
    lane.offer(live)
    assert lane.take(1, 2.0) == [live]


def test_a_job_that_ended_while_waiting_is_dropped_unseen(lane: Lane) -> None:
    gone = job()
    lane.offer(gone)
    gone.reply.end()
    assert lane.take(1, 0.0) == []
    assert heard(gone) == []


def test_a_withdrawn_job_frees_its_place(lane: Lane) -> None:
    jobs = [job() for _ in range(3)]
    for each in jobs:
        lane.offer(each)
    lane.drop(jobs[1])
    lane.drop(jobs[1])
    assert not lane.full
    assert lane.take(5, 0.0) == [jobs[0], jobs[2]]


def test_clearing_fails_every_waiting_job(lane: Lane) -> None:
    jobs = [job() for _ in range(3)]
    for each in jobs:
        lane.offer(each)
    error = Draining()
    lane.clear(error)
    assert [heard(each) for each in jobs] == [[error]] * 3
    assert len(lane) == 0


@pytest.mark.parametrize(
    ("deadline", "now", "expired"), [(None, 9e9, False), (1.0, 0.5, False), (1.0, 1.0, True)]
)
def test_a_job_expires_at_its_deadline(deadline: float | None, now: float, expired: bool) -> None:
    assert job(deadline).expired(now) is expired


def test_lanes_and_jobs_print_their_state(lane: Lane) -> None:
    waiting = job(request_id="r1")
    lane.offer(waiting)
    assert repr(lane) == "<Lane m: 1 of 3 waiting>"
    assert repr(waiting) == "<Job r1 for m: live>"
    waiting.reply.end()
    assert repr(waiting) == "<Job r1 for m: ended>"
