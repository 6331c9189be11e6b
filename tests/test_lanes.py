"""The bounded queue in which jobs wait: order, bound, expiry, withdrawal, whose place is whose."""

from typing import Any

import msgspec
import pytest

from atomserve.context import Context
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.lanes import Lane
from atomserve.engine.options import Options
from atomserve.engine.traits import Traits
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


def job(
    deadline: float | None = None, request_id: str = "", tenant: str = "", urgency: int = 3
) -> Job:
    context = Context(model="m", request_id=request_id, deadline=deadline, tenant=tenant)
    return Job(Payload(), context, Heard(), urgency=urgency)


def offered(lane: Lane, *jobs: Job) -> list[Job]:
    for each in jobs:
        lane.offer(each)
    return list(jobs)


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


def test_a_job_that_would_come_too_late_is_refused_although_there_are_places(lane: Lane) -> None:
    [first] = offered(lane, job())
    assert lane.take(1, 0.0) == [first]
    lane.finished(first, 2.0)  # two seconds each
    offered(lane, job())
    with pytest.raises(Overloaded, match="after the request's deadline") as caught:
        lane.offer(job(deadline=3.0), 2.0)
    assert (caught.value.limit, caught.value.remaining) == (3, 2)


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


def test_the_earliest_deadline_goes_first() -> None:
    lane = Lane("m", 9)
    later, never, sooner, soon = offered(lane, job(3.0), job(), job(1.0), job(2.0))
    assert lane.take(9, 0.0) == [sooner, soon, later, never]


def test_urgency_comes_before_deadlines() -> None:
    lane = Lane("m", 9)
    usual, idle, urgent = offered(lane, job(1.0), job(urgency=7), job(9.0, urgency=0))
    assert lane.take(9, 0.0) == [urgent, usual, idle]


def test_every_eighth_is_the_longest_waiting_whatever_its_urgency() -> None:
    lane = Lane("m", 99)
    [patient] = offered(lane, job(urgency=7))
    offered(lane, *(job(urgency=0) for _ in range(20)))
    assert lane.take(9, 0.0).index(patient) == 7


def test_what_lost_its_slot_goes_before_all_others() -> None:
    lane = Lane("m", 3)
    first, second = offered(lane, job(9.0), job(9.0))
    assert lane.take(2, 0.0) == [first, second]
    [urgent] = offered(lane, job(1.0, urgency=0))
    lane.restore(second)
    lane.restore(first)
    assert not first.started
    assert lane.take(9, 0.0) == [first, second, urgent]


def test_forgotten_jobs_leave_no_growing_remains() -> None:
    lane = Lane("m", 99)
    offered(lane, job(5.0), job(1.0))
    for n in range(10_000):
        [gone] = offered(lane, job(2.0 + n % 2, urgency=n % 8))
        lane.drop(gone)
    [tenant] = lane._queue.tenants.values()
    assert len(tenant.lines[None]._heap or ()) < 100
    assert len(lane) == 2


def test_tenants_take_turns() -> None:
    lane = Lane("m", 9)
    a = offered(lane, *(job(tenant="a") for _ in range(3)))
    b = offered(lane, *(job(tenant="b") for _ in range(2)))
    assert lane.take(9, 0.0) == [a[0], b[0], a[1], b[1], a[2]]


def test_a_full_lane_makes_room_at_the_cost_of_who_holds_most(lane: Lane) -> None:
    a = offered(lane, *(job(tenant="a") for _ in range(3)))
    assert lane.refuses("a")
    assert not lane.refuses("b")
    [b] = offered(lane, job(tenant="b"))
    assert [type(error) for error in heard(a[2])] == [Overloaded]
    assert lane.refuses("b")
    assert len(lane) == 3
    assert lane.take(9, 0.0) == [a[0], b, a[1]]


@pytest.mark.parametrize("how", ["drop", "clear", "expire", "lose"])
def test_a_pause_after_the_last_one_left_is_no_service_time(how: str) -> None:
    lane = Lane("m", 9)
    first, second = offered(lane, job(1.5), job(2.0))
    assert lane.take(1, 0.0) == [first]
    lane.finished(first, 1.0)
    if how == "drop":
        lane.drop(second)
    elif how == "clear":
        lane.clear(Draining())
    elif how == "expire":
        assert lane.take(1, 3.0) == []
    else:
        assert lane.take(1, 1.0) == [second]
        lane.restore(second)
        lane.drop(second)
    [late] = offered(lane, job())
    assert lane.take(1, 100.0) == [late]
    lane.finished(late, 101.0)
    assert lane.pace.seconds == pytest.approx(1.0)


def test_keys_and_costs_are_read_from_what_can_be_read() -> None:
    traits = Traits(Options(batch_key="language", batch_cost="length"))
    found = []
    for form, body in (
        ("json", b'{"language":"de","length":7,"text":"x"}'),
        ("msgpack", msgspec.msgpack.encode({"language": ["a", 1], "length": -1})),
        ("json", b"{broken"),
        ("raw", b"\x00"),
    ):
        read = Job(Payload(form=form, body=body), Context(), Heard())  # type: ignore[arg-type]
        traits.mark(read)
        found.append((read.key, read.cost))
    assert found == [("de", 7.0), (b'["a",1]', 1.0), (None, 1.0), (None, 1.0)]
    assert not Traits(Options())


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("json", b'{"language":"\xff","length":7}'),
        ("json", b'{"language":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
        ("json", b'{"language":"de","length":1' + b"0" * 400 + b"}"),
        ("msgpack", msgspec.msgpack.encode({"language": msgspec.msgpack.Ext(5, b"x")})),
        ("msgpack", msgspec.msgpack.encode({"language": {(1, 2): 3}, "length": 7})),
    ],
)
def test_what_cannot_be_read_has_no_key_and_the_usual_cost(form: Any, body: bytes) -> None:
    read = Job(Payload(form=form, body=body), Context(), Heard())
    Traits(Options(batch_key="language", batch_cost="length")).mark(read)
    assert (read.key, read.cost) == (None, 1.0)


@pytest.mark.parametrize("cost", ["length", "bytes"])
def test_a_job_costs_no_more_than_a_batch_may(cost: str) -> None:
    read = Job(Payload(body=b'{"length":1000000000000000000}'), Context(), Heard())
    Traits(Options(batch_cost=cost, max_batch_cost=20.0)).mark(read)
    assert read.cost == 20.0


def test_the_body_may_be_the_cost() -> None:
    read = Job(Payload(form="raw", body=bytes(300)), Context(), Heard())
    Traits(Options(batch_cost="bytes")).mark(read)
    assert read.cost == 300.0


def test_lanes_and_jobs_print_their_state(lane: Lane) -> None:
    waiting = job(request_id="r1")
    lane.offer(waiting)
    assert repr(lane) == "<Lane m: 1 of 3 waiting>"
    assert repr(waiting) == "<Job r1 for m: live>"
    waiting.reply.end()
    assert repr(waiting) == "<Job r1 for m: ended>"
