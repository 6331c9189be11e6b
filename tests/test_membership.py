"""When an instance registers, beats and withdraws, in virtual time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve.registration.membership import Call, Membership
from atomserve.settings import RegistrationSettings

Plane = Callable[[Call, float], str]
"""Says to a call ``ok``, ``failed``, ``forgotten`` or ``hangs``."""


class Run:
    """A membership, the calls that it made, and the time."""

    def __init__(self, plane: Plane, *, seed: int = 1, **settings: Any) -> None:
        self.settings = RegistrationSettings(**{"start_jitter": 0.0, **settings})
        self.membership = Membership(self.settings, epoch=1000, chance=random.Random(seed).random)
        self.plane = plane
        self.now = 0.0
        self.calls: list[tuple[Call, float]] = []
        self.states: list[tuple[str, float]] = []

    def until(self, end: float) -> Run:
        while True:
            call, at = self.membership.step(self.now)
            if at > end:
                self.now = max(self.now, end)
                return self
            self.now = max(self.now, at)
            if call is None:
                continue
            self.make(call)

    def make(self, call: Call) -> None:
        self.calls.append((call, self.now))
        self.membership.begin(call, self.now)
        told = self.plane(call, self.now)
        if told == "hangs":
            self.now += self.settings.timeout
        if told == "ok":
            self.membership.succeed(call)
        else:
            self.membership.fail(call, told, self.now, forgotten=told == "forgotten")
        self.states.append((self.membership.state, self.now))

    def ready(self, ready: bool = True) -> Run:
        self.membership.become_ready(ready, self.now)
        return self

    def times(self, call: Call) -> list[float]:
        return [at for made, at in self.calls if made == call]


def agrees(call: Call, now: float) -> str:
    return "ok"


def refuses(call: Call, now: float) -> str:
    return "failed"


def up_after(seconds: float) -> Plane:
    return lambda call, now: "ok" if now >= seconds else "failed"


def test_r14_nothing_is_told_before_the_instance_is_ready() -> None:
    run = Run(agrees).until(60.0)
    assert run.calls == []
    assert run.ready().until(60.0).calls == [("register", 60.0)]
    assert run.membership.state == "registered"


def test_r11_heartbeats_come_by_the_interval_whatever_a_call_takes() -> None:
    run = Run(agrees).ready().until(60.0)
    assert run.times("register") == [0.0]
    assert run.times("heartbeat") == [2.0 * number for number in range(1, 31)]


@pytest.mark.parametrize("seed", range(20))
def test_r01_a_control_plane_that_is_down_is_tried_twelve_times_in_five_minutes(seed: int) -> None:
    run = Run(refuses, seed=seed).ready().until(300.0)
    times = run.times("register")
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) <= 12
    assert min(waits) >= 2.0 - 1e-6
    assert max(waits) <= 30.0 + 1e-6
    assert waits[0] < waits[1] < waits[2]
    assert {state for state, _ in run.states} == {"waiting"}


@pytest.mark.parametrize("seed", range(20))
def test_r02_one_that_comes_up_late_is_told_within_the_longest_wait(seed: int) -> None:
    run = Run(up_after(30.0), seed=seed).ready().until(61.0)
    assert run.membership.state == "registered"


def test_r05_an_instance_that_is_forgotten_registers_once_and_beats_on() -> None:
    def forgets(call: Call, now: float) -> str:
        return "forgotten" if (call, now) == ("heartbeat", 10.0) else "ok"

    run = Run(forgets).ready().until(30.0)
    assert run.times("register") == [0.0, 10.0]
    beats = run.times("heartbeat")
    assert [later - earlier for earlier, later in itertools.pairwise(beats)] == [2.0] * 14
    assert run.membership.epoch == 1002


def test_r07_one_that_forgets_always_is_told_ever_less_often() -> None:
    def forgets(call: Call, now: float) -> str:
        return "forgotten" if call == "heartbeat" else "ok"

    run = Run(forgets).ready().until(300.0)
    assert len(run.times("register")) <= 14
    assert {state for state, _ in run.states} == {"registered", "lost"}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("answer", ["failed", "hangs"])
def test_r06_after_a_partition_it_registers_anew_by_a_higher_epoch(answer: str, seed: int) -> None:
    def parted(call: Call, now: float) -> str:
        return answer if 20.0 <= now < 80.0 else "ok"

    run = Run(parted, seed=seed).ready().until(19.0)
    before = run.membership.epoch
    run.until(26.0)
    assert run.membership.state == "lost"
    # A call that is on its way when the partition heals may have to end first.
    run.until(80.0 + 2.0 + 30.0 + run.settings.timeout)
    assert run.membership.state == "registered"
    assert run.membership.epoch > before


def test_a_good_heartbeat_makes_the_next_wait_short_again() -> None:
    def fails_twice(call: Call, now: float) -> str:
        return "failed" if now < 2.0 or 100.0 <= now < 102.0 else "ok"

    run = Run(fails_twice).ready().until(200.0)
    lost = [now for state, now in run.states if state == "lost"]
    assert len(lost) == 1
    again = next(at for at in run.times("register") if at > lost[0])
    assert 2.0 <= again - lost[0] <= 3.0


def test_r09_a_stop_withdraws_once_and_says_nothing_after_that() -> None:
    run = Run(agrees).ready().until(5.0)
    run.membership.stop()
    run.until(60.0)
    assert run.calls[-1] == ("withdraw", 5.0)
    assert run.membership.over
    run.ready(False).ready(True).until(120.0)
    assert run.calls[-1] == ("withdraw", 5.0)
    assert run.membership.state == "withdrawn"


def test_r09_a_withdrawal_that_fails_is_not_tried_again() -> None:
    run = Run(lambda call, now: "failed" if call == "withdraw" else "ok").ready().until(5.0)
    run.membership.stop()
    run.until(600.0)
    assert run.times("withdraw") == [5.0]
    assert run.membership.over
    assert run.membership.trouble


def test_r09_a_registration_of_unknown_outcome_is_withdrawn() -> None:
    run = Run(lambda call, now: "hangs").ready().until(1.0)
    assert run.times("register") == [0.0]
    run.membership.stop()
    run.until(10.0)
    assert len(run.times("withdraw")) == 1


def test_an_instance_that_nobody_was_told_of_has_nothing_to_withdraw() -> None:
    run = Run(agrees)
    run.membership.stop()
    run.ready().until(60.0)
    assert run.calls == []
    assert (run.membership.state, run.membership.over) == ("withdrawn", True)


def test_r14_an_instance_that_is_not_ready_stays_registered_unless_told_otherwise() -> None:
    run = Run(agrees).ready().until(5.0)
    run.ready(False).until(600.0)
    assert run.membership.state == "registered"
    assert not run.times("withdraw")


def test_r14_an_instance_that_is_not_ready_for_long_is_withdrawn_until_it_is() -> None:
    run = Run(agrees, unready_grace=10.0).ready().until(5.0)
    run.ready(False).until(12.0)
    run.ready(True).until(21.0)
    run.ready(False).until(40.0)
    assert run.times("withdraw") == [31.0]
    assert run.times("heartbeat")[-1] == 30.0
    assert run.membership.state == "withdrawn"
    run.until(100.0)
    run.ready(True).until(101.0)
    assert run.times("register") == [0.0, 100.0]
    assert run.membership.state == "registered"


def test_a_lost_instance_registers_only_when_it_is_ready() -> None:
    run = Run(lambda call, now: "ok" if now < 10.0 else "failed").ready().until(9.0)
    run.ready(False).until(60.0)
    assert run.membership.state == "lost"
    assert run.times("register") == [0.0]


def test_r12_a_hundred_instances_that_start_at_once_register_one_after_the_other() -> None:
    times = []
    for seed in range(100):
        run = Run(agrees, seed=seed, start_jitter=RegistrationSettings().start_jitter)
        times += run.ready().until(20.0).times("register")
    assert len(times) == 100
    assert max(times) - min(times) >= 5.0
    assert max(sum(at <= other < at + 1.0 for other in times) for at in times) <= 30


def test_the_state_is_printed() -> None:
    run = Run(refuses).ready().until(1.0)
    assert repr(run.membership) == "<Membership waiting: epoch 1001, failed>"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ready", "unready", "stop", "wait"]),
        st.floats(0.0, 40.0),
        st.sampled_from(["ok", "failed", "forgotten", "hangs"]),
    ),
    max_size=20,
)


@given(EVENTS, st.sampled_from([None, 0.0, 5.0]), st.integers(0, 1000))
def test_whatever_happens_it_keeps_its_promises(
    events: list[tuple[str, float, str]], grace: float | None, seed: int
) -> None:
    answer = "ok"
    run = Run(lambda *_: answer, seed=seed, unready_grace=grace, start_jitter=3.0)
    ready = stopped = False
    for event, seconds, answer in events:  # noqa: B007 - the plane above reads the answer
        seen = len(run.calls)
        if event == "stop":
            run.membership.stop()
            stopped = True
        elif event != "wait":
            ready = event == "ready"
            run.ready(ready)
        epoch = run.membership.epoch
        run.until(run.now + seconds)
        new = run.calls[seen:]
        registers = sum(call == "register" for call, _ in new)
        assert ready or not registers
        assert not stopped or [call for call, _ in new] in ([], ["withdraw"])
        assert not stopped or run.membership.over
        assert run.membership.epoch == epoch + registers
        assert run.membership.step(run.now).at > run.now or run.membership.step(run.now).at == inf
