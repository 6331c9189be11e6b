"""Many clients at once: honest refusals, deadlines, batches, and nobody hurts anybody."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faults import await_that, faulty
from flows import PLUGIN, Flow, Watch, at_best, flowing, part, told
from load import Answer, Caller, Request, burst, run_all

MiB = 1024 * 1024

# L04: four times as much as the model can do.

PLACES = 32
CLIENTS = 64
SERVICE = 0.05
AT_ONCE = {"Work": 1, "Batch": 2}
"""What the model takes at once: so little that it is the model that is too slow, not the machine
with 64 clients on it."""


def overloadable(cls: str, places: int = PLACES) -> str:
    return f"max_batch_size = {AT_ONCE[cls]}\nqueue_size = {places}"


@dataclass
class Seen:
    """What many clients saw, and what the instance held meanwhile."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    queue: int = 0
    grown: int = 0
    refusals: list[float] = field(default_factory=list)
    """Seconds that each took the server."""

    def of(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.answers if answer.status in statuses]

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.of(200)) / self.seconds


def sleeping(seen: Seen, seconds: float, pause: float) -> Request:
    """Return requests that take ``seconds`` of the model; a refused client waits for ``pause``."""

    def ask(caller: Caller, number: int) -> tuple[Answer, bool]:
        token = f"token-{number}"
        answer = caller.ask("it", token=token, seconds=seconds)
        seen.answers.append(answer)
        if answer.status != 200:
            time.sleep(pause)
        return answer, answer.status != 200 or token.encode() in answer.body

    return ask


def asked(
    flow: Flow, count: int, clients: int, *, seconds: float = SERVICE, pause: float = 0.0
) -> Seen:
    """Have so many clients make ``count`` requests."""
    seen = Seen()
    before = len(flow.durations(429))
    with Watch(flow) as watch:
        began = time.monotonic()
        tally = burst(flow.port, count, sleeping(seen, seconds, pause), clients=clients)
        seen.seconds = time.monotonic() - began
    assert not {"crossed", "lost"} & set(tally.outcomes), tally
    seen.queue, seen.grown = watch.queue, watch.grown
    await_that(lambda: len(flow.durations(429)) - before == len(seen.of(429)), within=5.0)
    seen.refusals = flow.durations(429)[before:]
    return seen


def hints(seen: Seen) -> list[int]:
    """Return the Retry-After of each refusal, 0 for none."""
    told = [answer.headers.get("retry-after", "0") for answer in seen.of(429, 503)]
    return [int(each) if each.isdecimal() else 0 for each in told]


def dishonest(seen: Seen) -> list[str]:
    """Say what no load excuses."""
    found = []
    statuses = {answer.status for answer in seen.answers}
    if not statuses <= {200, 429, 503}:
        found.append(f"answered {statuses}")
    if not all(hint >= 1 for hint in hints(seen)):
        found.append(f"Retry-After {set(hints(seen))}")
    if seen.queue > PLACES:
        found.append(f"{seen.queue} waited")
    if seen.grown > 50 * MiB:
        found.append(f"{seen.grown / MiB:.0f} MiB more")
    return found


def slow(seen: Seen, capacity: float) -> list[str]:
    """Say what took too long, of a model that answers ``capacity`` requests per second."""
    found = []
    if seen.rate < 0.9 * capacity:
        found.append(f"goodput {seen.rate:.1f}/s of {capacity:.1f}/s")
    # The last of the queue waits for the others and for what runs, and then runs itself.
    most = 1.2 * PLACES / capacity + 2 * SERVICE + 0.2
    if (p99 := part([each.seconds for each in seen.of(200)], 0.99)) > most:
        found.append(f"p99 {p99:.3f} s, over {most:.3f} s")
    if not seen.refusals:
        found.append("nobody was refused")
    elif max(hints(seen)) > math.ceil(2 * PLACES / capacity):
        found.append(f"Retry-After {max(hints(seen))}")
    if statistics.median(seen.refusals or [0.0]) > 0.01:
        found.append(told("refusals", seen.refusals))
    return found


def overloaded(
    flow: Flow, cls: str, *, long: float = 18.0, seconds: float = SERVICE
) -> tuple[Seen, float]:
    """Return what 64 clients see, and how much the model does for few, before and after.

    They ask ``long`` times as often as the model can answer in a second.
    """
    few, rate = 2 * AT_ONCE[cls], AT_ONCE[cls] / SERVICE
    before = asked(flow, int(1.5 * rate), few).rate
    # Those without a place ask three times as often as the model answers.
    pause = (CLIENTS - PLACES - AT_ONCE[cls]) / (3 * rate)
    seen = asked(flow, int(long * rate), CLIENTS, seconds=seconds, pause=pause)
    # What slows this machine down meanwhile is no fault of the model's.
    capacity = min(before, asked(flow, int(1.5 * rate), few).rate)
    row = PLACES / capacity * 1.2
    times = [answer.seconds for answer in seen.of(200)]
    print(
        f"goodput {seen.rate:.1f}/s of {capacity:.1f}/s, {len(seen.answers) / seen.seconds:.0f} "
        f"asked/s, queue {seen.queue}, {seen.grown / MiB:.1f} MiB, {told('200', times)} "
        f"(limit/rate + 20 %: {row * 1e3:.0f} ms), {told('429', seen.refusals or [0.0])}, "
        f"Retry-After { ({each.headers.get('retry-after') for each in seen.of(429, 503)}) }"
    )
    return seen, capacity


@pytest.mark.timeout(90)
@pytest.mark.parametrize("cls", AT_ONCE)
def test_l04_an_overloaded_model_refuses_at_once_and_does_as_much_as_ever(
    tmp_path: Path, cls: str
) -> None:
    with flowing(tmp_path, cls, overloadable(cls), "--access-log") as flow:

        def complaints() -> list[str]:
            seen, capacity = overloaded(flow, cls)
            assert not dishonest(seen)
            assert seen.queue > PLACES // 2, "that is no overload"
            return slow(seen, capacity)

        at_best(3, complaints)
        assert flow.it.errors() == []


@pytest.mark.timeout(60)
def test_l04_a_queue_too_long_and_a_model_that_slows_down_are_seen(tmp_path: Path) -> None:
    settings = overloadable("Batch", 2 * CLIENTS)
    with flowing(tmp_path, "Batch", settings, "--access-log") as flow:
        seen, capacity = overloaded(flow, "Batch", long=5.0, seconds=1.5 * SERVICE)
        assert [found.split()[-1] for found in dishonest(seen)] == ["waited"]
        assert [found.split()[0] for found in slow(seen, capacity)] == ["goodput", "p99", "nobody"]


def test_l04_refusals_that_say_nothing_or_come_late_are_seen() -> None:
    good = [Answer(200, {}, b"")] * 9
    seen = Seen([*good, Answer(429, {"retry-after": "0"}, b"")], 1.0)
    seen.refusals, seen.grown = [0.02], 51 * MiB
    assert dishonest(seen) == ["Retry-After {0}", "51 MiB more"]
    assert [found.split()[0] for found in slow(seen, 10.0)] == ["refusals:"]
    seen = Seen([*good, Answer(429, {"retry-after": "60"}, b"")], 1.0, refusals=[0.001])
    assert slow(seen, 10.0) == ["Retry-After 60"]
    seen = Seen([Answer(500, {}, b""), Answer(503, {}, b"")])
    assert dishonest(seen) == [f"answered { {500, 503} }", "Retry-After {0}"]


# L05: deadlines that pass in the queue.


def hurried(flow: Flow, timeout: str, count: int = 20) -> list[Answer]:
    """Ask ``count`` times at once, by clients that wait for so many seconds."""
    with ThreadPoolExecutor(count) as threads:
        asking = [
            threads.submit(flow.it.ask, "it", f"Request-Timeout: {timeout}", token="hurried")
            for _ in range(count)
        ]
        return [each.result() for each in asking]


def busied(flow: Flow, each: float, count: int) -> Callable[[], object]:
    """Keep the model busy with ``count`` requests; return what waits for their end."""
    threads = ThreadPoolExecutor(count)
    begun = len(flow.notes.all("began"))
    for number in range(count):
        threads.submit(flow.it.ask, "it", token=f"busy-{number}", seconds=each)
    flow.notes.awaits("began", begun + 1)
    await_that(lambda: sum(flow.at_work()) == count, within=5.0)
    return threads.shutdown


def runs(flow: Flow) -> int:
    return len(flow.notes.all("began"))


ONE = 'queue_size = 100\nmax_batch_size = 1\ntimeout = "60s"'


@pytest.mark.timeout(40)
@pytest.mark.parametrize(("cls", "before"), [("Work", 0), ("Batch", 0), ("Work", 500)])
def test_l05_a_deadline_that_passes_in_the_queue_is_never_run(
    tmp_path: Path, cls: str, before: int
) -> None:
    with flowing(tmp_path, cls, ONE) as flow:
        # Of a model that is always quick the worker has the queue; of a new one nothing is known.
        assert burst(flow.port, before, sleeping(Seen(), 0.0, 0.0)).good == before
        wait = busied(flow, 1.0, 1)
        answers = hurried(flow, "0.1")
        assert {(each.status, each.code) for each in answers} == {(504, "deadline_exceeded")}
        times = [answer.seconds for answer in answers]
        print(told("504", times))
        assert min(times) >= 0.1
        assert max(times) < 0.9, "the model's answer was waited for"
        wait()
        assert runs(flow) == before + 1
        assert flow.at_work() == (0, 0)
        assert flow.it.ask("it", token="next").status == 200
        assert runs(flow) == before + 2


@pytest.mark.timeout(40)
@pytest.mark.parametrize("cls", ["Work", "Batch"])
def test_l05_a_deadline_that_would_pass_in_the_queue_is_refused_before(
    tmp_path: Path, cls: str
) -> None:
    with flowing(tmp_path, cls, ONE) as flow:
        for _ in range(10):
            assert flow.it.ask("it", seconds=0.25).status == 200
        wait = busied(flow, 0.25, 4)
        answers = hurried(flow, "0.1")
        assert {(each.status, each.code) for each in answers} == {(429, "overloaded")}
        assert all(int(each.headers["retry-after"]) >= 1 for each in answers)
        print(told("429", [answer.seconds for answer in answers]))
        wait()
        assert runs(flow) == 14


@pytest.mark.parametrize("cls", ["Work", "Batch"])
def test_l05_runs_of_requests_with_time_are_seen(tmp_path: Path, cls: str) -> None:
    with flowing(tmp_path, cls, ONE) as flow:
        wait = busied(flow, 0.5, 1)
        assert {each.status for each in hurried(flow, "10")} == {200}
        wait()
        assert runs(flow) == 21


# L10: large bodies beside small ones.


@cache
def npy(size: int) -> bytes:
    head = f"{{'descr':'<f4','fortran_order':False,'shape':({size},)}}".ljust(117) + "\n"
    lead = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    return lead + bytes(4 * size)


SMALL, LARGE = 256, 16_000_000


def sized(caller: Caller, size: int) -> Answer:
    answer = caller.post("/v1/models/it/predict", npy(size), "application/x-npy")
    assert (answer.status, answer.json()) == (200, size)
    return answer


def of_small(port: int, count: int) -> list[float]:
    """Return how long each small request of 8 clients took."""
    found: list[float] = []

    def ask(caller: Caller, number: int) -> tuple[Answer, bool]:
        answer = sized(caller, SMALL)
        found.append(answer.seconds)
        time.sleep(0.005)
        return answer, True

    assert burst(port, count, ask).good == count
    return found


def held_up(port: int, count: int = 2000) -> list[str]:
    """Say how much longer small requests take while one client sends large ones, if too much."""
    alone, beside, made = of_small(port, count), list[float](), [0]
    over = threading.Event()

    def send_large() -> None:
        caller = Caller(port)
        while not over.is_set():
            sized(caller, LARGE)
            made[0] += 1
        caller.close()

    def send_small() -> None:
        try:
            beside.extend(of_small(port, count))
        finally:
            over.set()

    run_all([send_large, send_small])
    print(f"{told('alone', alone)}; {told('beside', beside)}; {made[0]} of 64 MB")
    assert made[0] >= 3
    ratio = part(beside, 0.99) / part(alone, 0.99)
    return [f"p99 is {ratio:.1f} times as long"] if ratio > 5 else []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", ["process", "thread"])
def test_l10_large_bodies_hold_up_small_ones_little(tmp_path: Path, executor: str) -> None:
    flags = (f"--plugins=it={PLUGIN}:Size", f"--executor={executor}")
    with faulty(tmp_path, {}, "[models.it]\ncapacity = 4\n", *flags) as it:
        at_best(3, lambda: held_up(it.port))


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_l10_small_ones_that_wait_for_large_ones_are_seen(tmp_path: Path) -> None:
    settings = "[models.it.config]\nseconds = 1.0\n"
    with faulty(tmp_path, {}, settings, f"--plugins=it={PLUGIN}:Size") as it:
        assert held_up(it.port, 600)


# L14: batches.

EXECUTION = 0.01
DELAY = 0.02


def batched(
    folder: Path, most: int, *, count: int = 2000, setting: int = 0, fault: str = ""
) -> list[str]:
    """Say what is wrong with the batches of 8 clients, of at most ``most``."""
    settings = f'max_batch_size = {setting or most}\nmax_batch_delay = "{DELAY * 1e3:g}ms"'
    rows: list[dict[str, Any]] = []

    def ask(caller: Caller, number: int) -> tuple[Answer, bool]:
        token = f"token-{number}"
        answer = caller.ask("it", token=token, seconds=EXECUTION)
        rows.append(answer.json() if answer.status == 200 else {})
        return answer, answer.status == 200 and rows[-1]["token"] == token

    with flowing(folder, "Batch", settings, fault=fault) as flow:
        tally = burst(flow.port, count, ask)
        sizes = [int(size) for size, _ in flow.notes.all("began")]
    waits, idle = ([row[name] for row in rows] for name in ("waited", "idle"))
    print(f"{count} in {len(sizes)} batches, {told('waited', waits)}; {told('idle', idle)}")
    found = [f"{kind}: {n}" for kind, n in tally.outcomes.items() if kind != "200"]
    if sum(sizes) != count:
        found.append(f"ran {sum(sizes)}")
    if max(sizes) > most:
        found.append(f"a batch of {max(sizes)}")
    # While no batch runs, nobody waits but for company; beside that there is only the way.
    if statistics.median(idle) > DELAY:
        found.append(f"waited {statistics.median(idle):.3f} s beside a free slot")
    # For a batch that runs, for those of the clients in front, and for what surrounds them.
    rounds = math.ceil(8 / most)
    if part(waits, 0.95) > DELAY + rounds * 2 * EXECUTION:
        found.append(f"95 % waited up to {part(waits, 0.95):.3f} s")
    if max(idle) > DELAY + 1.0:
        found.append(f"one waited {max(idle):.3f} s beside a free slot")
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("most", [4, 8])
def test_l14_batches_mix_no_answers_keep_their_size_and_wait_for_nothing(
    tmp_path: Path, most: int
) -> None:
    number = iter(range(3))

    def complaints() -> list[str]:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        found = batched(folder, most)
        assert not [each for each in found if "waited" not in each]
        return found

    at_best(3, complaints)


@pytest.mark.timeout(60)
def test_l14_mixed_answers_too_large_batches_and_idle_waits_are_seen(tmp_path: Path) -> None:
    faults = {"crossed": 0, "tardy": 0, "": 8}
    found = []
    for fault, setting in faults.items():
        folder = tmp_path / f"it{fault}"
        folder.mkdir()
        found.append(batched(folder, 4, count=80, setting=setting, fault=fault))
    assert found[0][0].startswith("crossed: ")
    assert found[1][0].endswith("beside a free slot")
    assert found[2][0] == "a batch of 8"


# F21: a model that has no thread left.

PATHS = ("/livez", "/readyz", "/metrics", "/v1/status")


def probed(port: int, times: int) -> dict[str, list[float]]:
    """Return how long each of the endpoints took, again and again."""
    caller = Caller(port)
    found: dict[str, list[float]] = {path: [] for path in PATHS}
    for _ in range(times):
        for path in PATHS:
            answer = caller.get(path)
            assert answer.status == 200, answer
            found[path].append(answer.seconds)
    caller.close()
    return found


def hidden(times: dict[str, list[float]]) -> list[str]:
    """Say which endpoints took too long."""
    return [
        told(path, values) for path, values in times.items() if statistics.median(values) > 0.05
    ]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("executor", ["process", "thread"])
def test_f21_two_hundred_calls_that_block_leave_the_server_awake(
    tmp_path: Path, executor: str
) -> None:
    settings = f'capacity = 40\nqueue_size = 200\nexecutor = "{executor}"'
    with flowing(tmp_path, "Work", settings) as flow, ThreadPoolExecutor(200) as threads:
        assert flow.it.ask("it", token="first").status == 200
        calls = [
            threads.submit(flow.it.ask, "it", token=str(number), gate=True) for number in range(200)
        ]
        flow.notes.awaits("began", 1 + 40)
        await_that(lambda: flow.at_work() == (40, 160), within=10.0)

        def complaints() -> list[str]:
            times = probed(flow.port, 30)
            print("\n".join(told(path, values) for path, values in times.items()))
            return hidden(times)

        at_best(3, complaints)
        assert runs(flow) == 1 + 40
        with flow.open_gate():
            answers = [call.result() for call in calls]
        assert [each.json() for each in answers] == [str(number) for number in range(200)]
        assert runs(flow) == 1 + 200
        assert flow.at_work() == (0, 0)


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="a desk's window is 1 until the worker's first job has ended, whatever the capacity",
)
def test_f21_a_new_worker_uses_its_whole_capacity_at_once(tmp_path: Path) -> None:
    with flowing(tmp_path, "Work", "capacity = 4") as flow, ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(flow.it.ask, "it", gate=True) for _ in range(4)]
        try:
            flow.notes.awaits("began", 4, within=3.0)
        finally:
            with flow.open_gate():
                assert [call.result().status for call in calls] == [200] * 4


def test_f21_a_server_that_sleeps_is_seen(tmp_path: Path) -> None:
    settings = '[models.it]\nexecutor = "thread"\n'
    with (
        faulty(tmp_path, {"it": "Fault"}, settings) as it,
        ThreadPoolExecutor(1) as threads,
    ):
        at_best(3, lambda: hidden(probed(it.port, 15)))
        asleep = threads.submit(it.ask, "it", act="spin_in_c", n=2)
        await_that(lambda: hidden(probed(it.port, 1)), within=2.0)
        assert asleep.result().status == 200


# A batch with one bad item.


def of_32(flow: Flow) -> tuple[list[Answer], list[int]]:
    """Have 32 requests, of which one is bad, share a batch; return it and the calls' sizes."""
    with ThreadPoolExecutor(33) as threads:
        first = threads.submit(flow.it.ask, "it", gate=True)
        flow.notes.awaits("began", 1)
        asking = [
            threads.submit(flow.it.ask, "it", token=str(number), bad=number == 19)
            for number in range(32)
        ]
        await_that(lambda: sum(flow.at_work()) == 33, within=10.0)
        with flow.open_gate():
            assert first.result().status == 200
        answers = [each.result() for each in asking]
    return answers, [int(size) for size, _ in flow.notes.all("began")][1:]


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_one_bad_item_of_32_fails_alone_in_11_calls_and_6_rounds(
    tmp_path: Path, executor: str
) -> None:
    with flowing(tmp_path, "Batch", f'executor = "{executor}"') as flow:
        answers, sizes = of_32(flow)
        statuses = [answer.status for answer in answers]
        assert statuses == [200] * 19 + [500] + [200] * 12
        assert answers[19].code == "plugin_failed"
        good = [number for number in range(32) if number != 19]
        assert [answers[number].json()["token"] for number in good] == [str(n) for n in good]
        assert sizes[0] == 32
        assert len(sizes) <= 11
        assert len(set(sizes)) <= 6  # each round halves


def test_without_bisection_the_bad_item_fails_all_32(tmp_path: Path) -> None:
    with flowing(tmp_path, "Batch", "bisect = false") as flow:
        answers, sizes = of_32(flow)
        assert [answer.status for answer in answers] == [500] * 32
        assert sizes == [32]
