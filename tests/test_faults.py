"""What a plugin or a process that fails does to others: nothing. Real instances, real signals."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio
import h2raw
import psutil
import pytest
from faultplugin import ERRORS, SECRET
from faults import Instance, await_that, faulty, starting
from instances import await_gone
from load import Answer, Caller, burst, echo, run_all
from snap import await_same

from atomserve.backends.threads import HOP

IN_TIME = 10.0
"""Seconds for what takes less than 2 on a machine that nobody else uses."""


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Run what has to go on beside the test."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def asked(beside: ThreadPoolExecutor, it: Instance, model: str, **inputs: object) -> Future[Answer]:
    return beside.submit(it.ask, model, **inputs)


def warm(it: Instance, model: str, count: int = 200) -> None:
    assert burst(it.port, count, echo(model)).good == count


class Killer:
    """Kills a worker of a model whenever it is called, and notes how soon there was another."""

    def __init__(self, it: Instance, model: str, slots: int) -> None:
        self.killed = 0
        self._it = it
        self._model = model
        self._slots = slots

    def __call__(self) -> None:
        loaded = self._slots + self.killed
        self._it.await_workers(self._model, loaded)
        self._it.kill(self._it.workers(self._model)[0])
        self.killed += 1
        self._it.await_workers(self._model, loaded + 1, within=IN_TIME)


# Killed workers.


@pytest.mark.timeout(60)
def test_of_a_batch_that_kills_its_worker_only_the_guilty_request_fails(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with ThreadPoolExecutor(40) as clients, faulty(tmp_path, {"it": "FaultBatch"}) as it:
        it.await_workers("it", 1)
        # While this one runs, the others come together, and make one batch.
        first = clients.submit(it.ask, "it", input=1000)
        time.sleep(0.05)
        wanted = [*range(31), -1]
        asked = [clients.submit(it.ask, "it", input=number) for number in wanted]
        answers = [each.result() for each in asked]
        assert first.result().status == 200
        assert [each.json() for each in answers[:31]] == list(range(31))
        assert (answers[31].status, answers[31].code) == (500, "poison_request")
        # An answer may be there before the death is told.
        await_that(lambda: len(it.deaths()) == 3, within=IN_TIME)
        again = it.ask("it", input=-1)
        assert (again.status, again.code) == (500, "poison_request")
        # Others that kill cost their model nothing, either.
        for number in (-2, -3):
            assert it.ask("it", input=number).code == "poison_request"
        assert it.ask("it", input=5).json() == 5
        await_that(lambda: len(it.deaths()) == 9, within=IN_TIME)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("idempotent", [False, True])
def test_f01_of_10_000_requests_three_killed_workers_lose_none(
    tmp_path: Path, idempotent: bool
) -> None:
    settings = f"[models.it]\nslots = 3\nidempotent = {str(idempotent).lower()}\n"
    with faulty(tmp_path, {"it": "Fault"}, settings) as it:
        it.await_workers("it", 3)
        warm(it, "it")
        before = it.settled("worker.died")
        count = 10_000 if not idempotent else 2_000
        kill = Killer(it, "it", 3)
        at = [(count * quarter // 4, kill) for quarter in (1, 2, 3)]
        tally = burst(it.port, count, echo("it", act="sleep", n=0.001), at=at)
        lost = tally.outcomes.pop("503 worker_lost", 0)
        assert set(tally.outcomes) == {"200"}, (tally.outcomes, tally.lost)
        assert tally.good + lost == count
        # Of each killed worker the one that ran, and one that was answered and had not left yet.
        assert lost <= (0 if idempotent else 2 * 3)
        assert len(it.deaths(reason="signal 9 (Killed): out of memory?", cause="died")) == 3
        assert it.restarts("it") == {"died": 3}
        await_same(before, lambda: it.snapshot("worker.died"))


@pytest.mark.timeout(60)
def test_f01_holds_over_http_2(tmp_path: Path) -> None:
    async def stream(port: int, each: int, outcomes: list[tuple[int, bytes]]) -> None:
        async with h2raw.connect(port) as client:
            for number in range(each):
                token = f"{id(client)}-{number}"
                body = f'{{"act":"sleep","n":0.001,"token":"{token}"}}'.encode()
                fields = ("content-type", "application/json")
                made = await client.request(
                    "/v1/models/it/predict", fields, method="POST", end=False
                )
                await client.data(made, body, end=True)
                found = await client.answer(made)
                right = found.status != 200 or found.body == f'"{token}"'.encode()
                assert right, "crossed"
                assert found.status != 503 or "retry-after" in found.headers
                outcomes.append((found.status, found.body))

    async def all_streams(it: Instance) -> list[tuple[int, bytes]]:
        outcomes: list[tuple[int, bytes]] = []
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(stream, it.port, 100, outcomes)
            for kills in range(3):
                while len(outcomes) < 200 * (kills + 1):
                    await anyio.sleep(0.005)
                it.kill(it.workers("it")[0])
        return outcomes

    with faulty(tmp_path, {"it": "Fault"}, "[models.it]\nslots = 2\n") as it:
        it.await_workers("it", 2)
        outcomes = anyio.run(all_streams, it)
        statuses = [status for status, _ in outcomes]
        assert len(outcomes) == 800
        assert statuses.count(200) >= 797
        assert set(statuses) <= {200, 503}
        assert len(it.deaths()) == 3


@pytest.mark.timeout(60)
def test_f02_all_workers_killed_at_once_keep_nobody_from_an_answer(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with faulty(tmp_path, {"it": "Fault"}, "[models.it]\nslots = 3\n") as it:
        it.await_workers("it", 3)
        warm(it, "it")
        before = it.settled("worker.died")
        running = [asked(beside, it, "it", act="sleep", n=0.5) for _ in range(3)]
        time.sleep(0.2)  # they run
        queued = [asked(beside, it, "it", token=str(n)) for n in range(10)]
        time.sleep(0.1)
        for pid in it.workers("it"):
            it.kill(pid)
        assert it.await_readiness(503, within=1.0) < 1.0
        assert it.await_readiness(200, within=5.0) < 5.0
        for lost in running:
            assert (lost.result().status, lost.result().code) == (503, "worker_lost")
            assert lost.result().headers["retry-after"]
        assert [answer.result().json() for answer in queued] == [str(n) for n in range(10)]
        it.await_workers("it", 6)
        await_same(before, lambda: it.snapshot("worker.died"))


@pytest.mark.timeout(60)
def test_f03_a_killed_api_process_takes_only_its_own_connections_with_it(tmp_path: Path) -> None:
    with faulty(tmp_path, {"it": "Fault"}, "[models.it]\nslots = 2\n", "--workers=2") as it:
        it.await_workers("it", 2)
        warm(it, "it", 400)
        before = it.settled("server.died")
        workers = it.workers("it")
        killed = it.children("api")[0]
        replaced: list[float] = []

        def kill() -> None:
            others = {process.pid for process in it.children("api")}
            began = it.kill(killed.pid)
            await_that(lambda: {p.pid for p in it.children("api")} - others, within=IN_TIME)
            assert [it.ask("it").status for _ in range(16)] == [200] * 16
            replaced.append(time.monotonic() - began)

        tally = burst(it.port, 2000, echo("it", act="sleep", n=0.001), at=[(500, kill)])
        assert replaced[0] < IN_TIME
        assert tally.outcomes.pop("lost", 0) <= 8  # on each of its connections at most one
        assert set(tally.outcomes) == {"200"}, tally.outcomes
        assert it.workers("it") == workers
        warm(it, "it", 400)
        await_same(before, lambda: it.snapshot("server.died"))


def test_f04_a_killed_supervisor_takes_everything_with_it(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    shm = set(os.listdir("/dev/shm"))
    with faulty(
        tmp_path, {"it": "Fault", "busy": "Fault"}, "[models.it]\nslots = 2\n", "--workers=2"
    ) as it:
        it.await_workers("it", 2)
        asked(beside, it, "busy", act="deafen", n=30).add_done_callback(lambda it: it.exception())
        time.sleep(0.3)
        children = psutil.Process(it.pid).children(recursive=True)
        assert len(children) == 5
        began = it.kill(it.pid)
        for child in children:
            await_gone(child.pid)
        assert time.monotonic() - began < 5
        assert it.server.process.wait(5) == -signal.SIGKILL
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", it.port))
            sock.listen()
        assert set(os.listdir("/dev/shm")) == shm


DEATHS = {
    "segfault": ({"act": "segfault"}, "signal 11"),
    "exit 0": ({"act": "exit", "n": 0}, "exit code 0"),
    "exit 7": ({"act": "exit", "n": 7}, "exit code 7"),
    "abort": ({"act": "kill", "n": 6}, "signal 6"),
}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """Yield an instance that bears as many deaths as the tests bring about."""
    models = {
        "it": "Fault",
        "other": "Fault",
        "stream": "FaultStream",
        "result": "FaultResult",
        "size": "FaultSize",
        "async": "FaultAsync",
    }
    settings = "".join(
        f'[models.{name}]\ncrash_limit = "1000/60s"\ntimeout = 10\ncapacity = 1\n'
        for name in models
    )
    with faulty(tmp_path_factory.mktemp("patient"), models, settings) as it:
        yield it


@pytest.mark.parametrize("name", DEATHS)
def test_f05_f06_a_worker_that_ends_itself_is_lost_with_its_request_only(
    patient: Instance, beside: ThreadPoolExecutor, name: str
) -> None:
    it, (inputs, reason) = patient, DEATHS[name]
    warm(it, "it")
    before = it.settled("worker.died")
    died = len(it.deaths())
    other = beside.submit(burst, it.port, 300, echo("other"))
    answer = asked(beside, it, "it", **inputs, token="mine").result()
    assert (answer.status, answer.code) == (503, "worker_lost")
    assert answer.headers["retry-after"]
    assert b"signal" not in answer.body
    assert it.ask("it", token="next").json() == "next"
    assert other.result().good == 300
    (death,) = it.deaths()[died:]
    assert death["reason"].startswith(reason)
    assert death["model"] == "it"
    await_same(before, lambda: it.snapshot("worker.died"))


@pytest.mark.timeout(60)
def test_f06_a_request_that_ends_its_worker_is_run_once(patient: Instance, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for count in range(1, 16):
        # The next one waits for the worker, and reaches it before anything else does.
        answer = patient.ask("it", act="exit", text=str(runs))
        assert (answer.status, answer.code) == (503, "worker_lost")
        assert runs.stat().st_size == count


def test_f05_a_segfault_tells_the_log_where_it_was(patient: Instance) -> None:
    patient.ask("it", act="segfault")
    patient.server.await_record(
        "plugin.output", model="it", text="Fatal Python error: Segmentation fault"
    )
    patient.server.await_line(lambda line: "do_segfault" in line)


def test_f05_a_segfault_leaves_no_core_file(tmp_path: Path) -> None:
    prefix = ["sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"', "sh"]
    with faulty(tmp_path, {"it": "Fault"}, prefix=prefix) as it:
        assert it.ask("it", act="segfault").code == "worker_lost"
        assert it.ask("it", token="next").json() == "next"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atomserve.toml"]


@pytest.mark.timeout(40)
def test_f07_a_worker_over_its_memory_is_replaced_between_requests(tmp_path: Path) -> None:
    settings = '[models.it]\nslots = 2\nmax_memory = "300MiB"\n'
    with faulty(tmp_path, {"it": "Fault", "other": "Fault"}, settings) as it:
        it.await_workers("it", 2)
        warm(it, "it")
        before = it.settled()
        workers = it.workers("it")

        def request(caller: Caller, number: int) -> tuple[Answer, bool]:
            if number == 100:
                return caller.ask("it", act="allocate", n=400, token="big"), True
            return echo("it", act="sleep", n=0.002)(caller, number)

        tally = burst(it.port, 1500, request)
        assert tally.outcomes == {"200": 1500}
        recycled = it.server.await_record("worker.recycled", reason="max_memory")
        assert recycled["pid"] in workers
        it.await_workers("it", 3)
        await_gone(recycled["pid"], 10)
        await_same(before, it.snapshot)


GROUPS = Path("/sys/fs/cgroup/memory")
"""Memory groups of the kernel's first version, where a test may make one."""


@contextmanager
def memory_group(size: int) -> Iterator[Path]:
    """Make a group whose processes have ``size`` bytes of memory together, and no swap."""
    group = GROUPS / f"atomserve-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(size))
    except OSError as exc:
        pytest.skip(f"no memory group can be made here: {exc}")
    try:
        yield group
    finally:
        await_that(lambda: not (group / "cgroup.procs").read_text(), within=IN_TIME)
        group.rmdir()


@pytest.mark.timeout(60)
def test_f08_a_worker_that_the_kernel_ends_for_want_of_memory_is_named(tmp_path: Path) -> None:
    with memory_group(200 * 2**20) as group, faulty(tmp_path, {"it": "Fault"}) as it:
        it.await_workers("it", 1)
        warm(it, "it")
        (pid,) = it.workers("it")
        (group / "cgroup.procs").write_text(str(pid))
        assert it.ask("it", act="allocate", n=20, token="fits").json() == "fits"
        answer = it.ask("it", act="allocate", n=400)
        assert (answer.status, answer.code) == (503, "worker_lost")
        death = it.server.await_record("worker.died", pid=pid)
        assert death["reason"] == "signal 9 (Killed): out of memory?"
        it.await_workers("it", 2)
        assert it.restarts("it") == {"died": 1}
        assert it.ask("it", token="again").json() == "again"


# Hung workers.

HANGS = {
    "f09_the_gil_released": {"act": "sleep", "n": 3600},
    "f10_the_gil_held": {"act": "spin", "n": 3600},
    "f11_in_c_deaf_to_signals": {"act": "deafen", "n": 3600},
}


@pytest.mark.timeout(40)
@pytest.mark.parametrize("name", HANGS)
def test_a_hung_worker_is_replaced(tmp_path: Path, beside: ThreadPoolExecutor, name: str) -> None:
    settings = "[models.it]\ntimeout = 2\ngrace = 1\n"
    with faulty(tmp_path, {"it": "Fault", "other": "Fault"}, settings) as it:
        warm(it, "it")
        before = it.settled("worker.died", "worker.hung")
        (hung,) = it.workers("it")
        began = time.monotonic()
        others = beside.submit(burst, it.port, 1000, echo("other", act="sleep", n=0.001), clients=2)
        answer = asked(beside, it, "it", **HANGS[name]).result()
        assert (answer.status, answer.code) == (504, "deadline_exceeded")
        assert 2.0 <= answer.seconds <= 2.5
        await_gone(hung)
        assert time.monotonic() - began < 2 + 1 + 1 + IN_TIME
        it.await_workers("it", 2, within=3.0)
        assert it.ask("it", token="next").json() == "next"
        assert others.result().outcomes == {"200": 1000}
        assert [death["cause"] for death in it.deaths()] == ["hung"]
        await_same(before, lambda: it.snapshot("worker.died", "worker.hung"))
        if name != "f11_in_c_deaf_to_signals":
            act = HANGS[name]["act"]
            assert any(f"in do_{act}" in line for line in it.server.logged)


@pytest.mark.timeout(40)
def test_f12_a_stopped_worker_answers_nobody_late(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    settings = "[models.it]\ntimeout = 2\ngrace = 60\n[models.strict]\ntimeout = 2\ngrace = 0.5\n"
    with faulty(tmp_path, {"it": "Fault", "strict": "Fault"}, settings) as it:
        (stopped,) = it.workers("it")
        (doomed,) = it.workers("strict")
        it.kill(stopped, signal.SIGSTOP)
        it.kill(doomed, signal.SIGSTOP)
        lost = [asked(beside, it, name, token="late") for name in ("it", "strict")]
        assert [answer.result().status for answer in lost] == [504, 504]
        await_gone(doomed, 15)  # within its grace, which the other still has
        # Its own timeout does not cover another worker's start.
        it.await_workers("strict", 2)
        assert it.ask("strict", token="next").json() == "next"
        it.kill(stopped, signal.SIGCONT)
        assert burst(it.port, 300, echo("it")).outcomes == {"200": 300}
        assert it.workers("it") == [stopped]


# Starts.


@pytest.mark.timeout(60)
def test_f13_a_model_that_cannot_start_fails_alone(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    settings = f'[models.broken.config]\nact = "raise"\ncount = "{starts}"\n'
    with starting(tmp_path, {"broken": "FaultLoad", "good": "Fault"}, settings) as it:
        it.server.await_line(lambda line: "broken: failed" in line, within=30)
        assert len(starts.read_text().split()) <= 6
        assert it.readiness() == 503
        assert it.readiness("/readyz/good") == 200
        assert it.readiness("/livez") == 200
        answer = it.ask("broken")
        assert (answer.status, answer.code) == (503, "not_ready")
        assert burst(it.port, 300, echo("good")).good == 300
        assert it.server.process.poll() is None


@pytest.mark.timeout(60)
def test_f13_a_crash_loop_is_given_up_with_readiness_any_still_ready(tmp_path: Path) -> None:
    settings = 'readiness = "any"\n[models.it]\nslots = 1\n'
    with faulty(tmp_path, {"it": "Fault", "good": "Fault"}, settings) as it:
        others = [0]

        def crash_until_failed() -> None:
            while b'"failed"' not in it.get("/v1/models/it").body:
                it.ask("it", act="exit", n=1)

        def serve() -> None:
            others[0] = burst(it.port, 3000, echo("good"), clients=2).good

        run_all([crash_until_failed, serve])
        assert others == [3000]
        assert len(it.deaths(model="it")) == 6
        assert it.readiness() == 200
        assert it.readiness("/readyz/it") == 503


@pytest.mark.timeout(40)
def test_f14_while_a_model_loads_the_server_lives(tmp_path: Path) -> None:
    settings = "[models.slow.config]\nsleep = 5\n"
    with starting(tmp_path, {"slow": "FaultLoad", "quick": "Fault"}, settings) as it:
        it.server.await_line(lambda line: "quick: ready" in line)
        began = time.monotonic()
        while (ready := it.readiness()) == 503:
            assert it.readiness("/livez") == 200
            time.sleep(0.1)
            assert time.monotonic() - began < 15
        assert ready == 200
        assert time.monotonic() - began > 3
        assert it.ask("slow", token="x").json() == "x"
        assert not it.deaths()


# The process tree.


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_f15_two_hundred_crashes_leave_nothing_behind(tmp_path: Path) -> None:
    settings = '[models.it]\ncrash_limit = "1000/60s"\ntimeout = 10\n'
    with faulty(tmp_path, {"it": "Fault", "good": "Fault"}, settings) as it:
        warm(it, "it")
        assert it.ask("it", act="segfault").status == 503
        warm(it, "it")
        before = it.settled("worker.died")
        ways = [{"act": "segfault"}, {"act": "exit", "n": 0}, {"act": "kill", "n": 9}]
        for number in range(200):
            answer = it.ask("it", **ways[number % 3])
            assert (answer.status, answer.code) == (503, "worker_lost"), number
        await_that(lambda: len(it.deaths()) == 201, within=IN_TIME)
        warm(it, "it")
        await_same(before, lambda: it.snapshot("worker.died"))


def unshared() -> list[str]:
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("NOT TESTED: no permission to make a pid namespace")
    return prefix


def test_f16_as_process_1_it_reaps_what_plugins_orphan(tmp_path: Path) -> None:
    with faulty(tmp_path, {"it": "Fault"}, prefix=unshared()) as it:
        (first,) = psutil.Process(it.pid).children()
        assert len(first.children()) == 2
        for _ in range(3):
            orphan = it.ask("it", act="orphan", n=0.5)
            assert orphan.status == 200
        assert len(first.children()) > 2
        await_that(lambda: len(first.children()) == 2, within=5)
        assert it.ask("it", act="exit", n=0).status == 503
        assert it.ask("it", token="next").json() == "next"
        assert len(it.deaths()) == 1
        first.send_signal(signal.SIGTERM)
        assert it.server.wait() == 0


@pytest.mark.timeout(40)
def test_f22_a_storm_of_signals_changes_nothing(tmp_path: Path, beside: ThreadPoolExecutor) -> None:
    numbers = (
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCHLD,
    )
    with faulty(tmp_path, {"it": "Fault"}, "[models.it]\nslots = 2\n") as it:
        it.await_workers("it", 2)
        warm(it, "it")
        before = it.settled()
        tally = beside.submit(burst, it.port, 3000, echo("it"))
        for number in range(1000):
            it.kill(it.pid, numbers[number % len(numbers)])
            time.sleep(0.002)
        assert tally.result().outcomes == {"200": 3000}
        assert psutil.Process(it.pid).status() != psutil.STATUS_STOPPED
        await_same(before, it.snapshot)
        assert len(it.children("worker")) == 2


# What plugins answer.


@pytest.mark.parametrize("name", ERRORS)
def test_g01_whatever_a_plugin_raises_is_answered_and_its_worker_lives(
    patient: Instance, name: str
) -> None:
    (worker,) = patient.workers("other")
    answer = patient.ask("other", act="raise", text=name)
    assert (answer.status, answer.code) == (500, "plugin_failed")
    assert SECRET.encode() not in answer.body
    error_id = answer.json()["instance"].rpartition(":")[2]
    told = patient.server.await_record("plugin.failed", error_id=error_id)
    assert SECRET in told["exception"]
    assert patient.ask("other", act="pid").json() == worker


@pytest.mark.parametrize("name", ERRORS)
def test_g01_a_stream_that_raises_ends_with_an_error_event(patient: Instance, name: str) -> None:
    (worker,) = patient.workers("stream")
    answer = patient.ask("stream", act="raise", text=name)
    assert answer.status == 200
    assert answer.body.count(b"data: ") == 4
    assert b"event: error\ndata: " in answer.body
    assert b"plugin_failed" in answer.body
    assert SECRET.encode() not in answer.body
    assert patient.workers("stream") == [worker]
    assert patient.ask("stream").body.endswith(b"event: end\ndata:\n\n")


@pytest.mark.parametrize("name", ERRORS)
def test_g01_whatever_a_coroutine_raises_is_answered_and_its_worker_lives(
    patient: Instance, name: str
) -> None:
    (worker,) = patient.workers("async")
    answer = patient.ask("async", text=name)
    assert (answer.status, answer.code) == (500, "plugin_failed")
    assert SECRET.encode() not in answer.body
    assert patient.ask("async").json() == worker


def test_g02_wrong_answers_are_the_models_fault(patient: Instance) -> None:
    before = patient.settled()
    for act in ("shape", "dtype", "object", "text", "nothing"):
        answer = patient.ask("result", act=act)
        assert (answer.status, answer.code) == (500, "bad_answer"), act
    for inputs in ({"act": "unwritable"},):
        answer = patient.ask("other", **inputs)
        assert (answer.status, answer.code) == (500, "bad_answer")
    answer = patient.ask("size", size=500_000_000)  # 2 GB
    assert (answer.status, answer.code) == (500, "bad_answer")
    assert patient.ask("result", act="right").status == 200
    assert b"event: error" in patient.ask("stream", act="unwritable").body
    await_same(before, lambda: patient.snapshot("plugin.bad_answer"))


def test_g02_a_stream_without_end_ends_with_its_reader(patient: Instance) -> None:
    body = b'{"act":"forever"}'
    head = (
        b"POST /v1/models/stream/predict HTTP/1.1\r\nHost: test\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", patient.port), 10) as sock:
            sock.sendall(head + body)
            read = b""
            while read.count(b"data: ") < 50:
                read += sock.recv(65536)
        # The one slot is free again: the next stream finds it.
        assert patient.ask("stream").body.endswith(b"event: end\ndata:\n\n")


def test_g02_a_worker_lost_in_a_stream_ends_it_with_an_error_event(patient: Instance) -> None:
    answer = patient.ask("stream", act="kill")
    assert b"event: error" in answer.body
    assert b"worker_lost" in answer.body


# What plugins leave behind.


@pytest.mark.timeout(40)
def test_g05_what_a_plugin_leaves_ends_with_its_worker(tmp_path: Path) -> None:
    settings = "[models.it]\nmax_requests = 300\n"
    litter = tmp_path / "litter"
    litter.mkdir()
    with faulty(tmp_path, {"it": "Fault", "other": "Fault"}, settings) as it:
        before = it.settled()
        (worker,) = it.workers("it")
        left = [
            {"act": "thread", "n": 3600},
            {"act": "open", "n": 50},
            {"act": "memfd"},
            {"act": "fork", "n": 3600},
            {"act": "orphan", "n": 3600},
            {"act": "zombie"},
            {"act": "litter", "text": str(litter)},
        ]
        answers = [it.ask("it", **inputs) for inputs in left]
        assert [answer.status for answer in answers] == [200] * len(left)
        assert it.ask("it", act="pid").json() == worker
        assert burst(it.port, 300, echo("other")).good == 300
        assert burst(it.port, 400, echo("it")).outcomes == {"200": 400}
        it.server.await_record("worker.recycled", reason="max_requests")
        await_gone(worker, 10)
        for forked in (answers[3], answers[4]):
            await_gone(forked.json())
        await_same(before, it.snapshot)


@pytest.mark.timeout(40)
@pytest.mark.parametrize("session", ["", "own"])
def test_g05_a_fork_that_outlives_its_worker_keeps_no_request_waiting(
    tmp_path: Path, beside: ThreadPoolExecutor, session: str
) -> None:
    with faulty(tmp_path, {"it": "Fault"}) as it:
        forked = it.ask("it", act="fork", n=20, text=session).json()
        try:
            (worker,) = it.workers("it")
            running = asked(beside, it, "it", act="sleep", n=15)
            time.sleep(0.3)
            it.kill(worker)
            answer = running.result(5)
            assert (answer.status, answer.code) == (503, "worker_lost")
            assert it.ask("it", token="next").json() == "next"
        finally:
            if psutil.pid_exists(forked):
                os.kill(forked, signal.SIGKILL)


def test_g06_bytes_on_stdout_disturb_nothing(patient: Instance) -> None:
    it = patient
    errors = len(it.errors())
    for _ in range(5):
        assert it.ask("it", act="print", n=100, token="printed").json() == "printed"
    assert burst(it.port, 300, echo("it", act="print", n=1)).outcomes == {"200": 300}
    assert it.server.await_record("plugin.output", model="it", stream="stdout")
    assert len(it.errors()) == errors


@pytest.mark.timeout(60)
def test_g07_a_broken_plugin_costs_its_neighbour_nothing(
    patient: Instance, beside: ThreadPoolExecutor
) -> None:
    stop = threading.Event()

    def break_down() -> int:
        caller, made = Caller(patient.port), 0
        while not stop.is_set():
            assert caller.ask("it", act="raise", text="BaseException").status == 500
            made += 1
        caller.close()
        return made

    broken = [beside.submit(break_down) for _ in range(2)]
    tally = burst(patient.port, 5000, echo("other"), clients=4)
    stop.set()
    assert tally.outcomes == {"200": 5000}
    assert all(each.result() > 100 for each in broken)


@pytest.mark.timeout(90)
def test_g11_a_capacity_of_one_holds_over_api_processes_and_restarts(tmp_path: Path) -> None:
    settings = "[models.it]\ncapacity = 1\nmax_requests = 3500\n"

    def request(caller: Caller, number: int) -> tuple[Answer, bool]:
        answer = caller.ask("it", act="overlap", n=0.0002)
        return answer, answer.status != 200 or answer.json() == 1

    with faulty(tmp_path, {"it": "Fault"}, settings, "--workers=2") as it:

        def kill() -> None:
            it.kill(it.workers("it")[-1])

        tally = burst(it.port, 10_000, request, at=[(2500, kill), (5000, kill)])
        # Short jobs share a hop: of each killed worker, those answered that had not left yet.
        assert tally.outcomes.pop("503 worker_lost", 0) <= 2 * HOP
        assert set(tally.outcomes) == {"200"}, tally.outcomes
        assert it.server.records("worker.recycled")
        assert len(it.deaths()) == 2
