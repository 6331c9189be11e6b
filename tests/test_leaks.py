"""What an instance holds does not grow: connections, shared memory, names, whatever clients do."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import numpy as np
import psutil
import pytest
from faults import Instance, await_that, faulty
from instances import await_gone
from load import Answer, Caller, burst, echo, run_all
from snap import Snapshot, await_same, differences

TENSOR = 262_144
"""Float32 numbers of a tensor of 1 MiB."""


# The detectors: each sees what it is there for.

LEAKS: dict[str, tuple[dict[str, Any], str]] = {
    "fds": ({"act": "open", "n": 10}, "fds"),
    "threads": ({"act": "thread", "n": 60}, "threads"),
    "memory": ({"act": "allocate", "n": 50}, "rss"),
    "memory files": ({"act": "memfd"}, "memfds"),
    "children": ({"act": "fork", "n": 60}, "other processes"),
    "zombies": ({"act": "zombie"}, "zombies"),
    "names": ({"act": "shm", "text": f"test-{os.getpid()}"}, "/dev/shm"),
    "errors": ({"act": "raise", "text": "Exception"}, "errors in the log"),
}


def sees(it: Instance, before: Snapshot, told: str) -> bool:
    return any(told in line for line in differences(before, it.snapshot()))


def test_the_leak_gate_sees_each_kind_of_leak_and_nothing_where_none_is(tmp_path: Path) -> None:
    with faulty(tmp_path, {"it": "Fault"}) as it:
        assert burst(it.port, 200, echo("it")).good == 200
        before = it.settled()
        assert burst(it.port, 1000, echo("it")).good == 1000
        await_same(before, it.snapshot)
        for inputs, told in LEAKS.values():
            before = it.settled()
            it.ask("it", **inputs)
            await_that(partial(sees, it, before, told), within=2)
            with pytest.raises(AssertionError, match="left behind"):
                await_same(before, it.snapshot, within=0.1)
        os.unlink(f"/dev/shm/{LEAKS['names'][0]['text']}")


def test_the_leak_gate_sees_a_slow_leak_of_memory(tmp_path: Path) -> None:
    with faulty(tmp_path, {"it": "Fault"}) as it:
        assert burst(it.port, 200, echo("it")).good == 200
        before = it.settled()
        assert burst(it.port, 600, echo("it", act="allocate", n=0.05)).good == 600
        assert any("rss" in line for line in differences(before, it.settled()))


def test_a_worker_too_few_is_seen(tmp_path: Path) -> None:
    with faulty(tmp_path, {"it": "Fault"}) as it:
        before = it.settled()
        (worker,) = it.children("worker")
        it.kill(worker.pid, signal.SIGSTOP)  # it is there, but not one that works
        after = it.snapshot()
        after.kinds["worker"].processes -= 1
        assert differences(before, after) == ["worker: processes 1 -> 0"]
        it.kill(worker.pid, signal.SIGCONT)


def test_requests_lost_or_crossed_are_seen(tmp_path: Path) -> None:
    with faulty(tmp_path, {"it": "Fault"}) as it:

        def crossed(caller: Caller, number: int) -> tuple[Answer, bool]:
            answer = caller.ask("it", token=str(number))
            return answer, answer.json() == str(number + number % 2)

        assert burst(it.port, 20, crossed).outcomes == {"200": 10, "crossed": 10}
    tally = burst(it.port, 20, echo("it"))
    assert tally.outcomes == {"lost": 20}


# Connections.

HEAD = b"POST /v1/models/it/predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
BODY = b'{"token":"x"}'
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def opened(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 15)


def ends_well(port: int) -> None:
    with opened(port) as sock:
        sock.sendall(REQUEST)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def says_nothing(port: int) -> None:
    opened(port).close()


def resets(port: int) -> None:
    """Leave with RST, in the middle of an answer or before it."""
    with opened(port) as sock:
        sock.sendall(REQUEST)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_closes(port: int) -> None:
    with opened(port) as sock:
        sock.sendall(REQUEST)
        read = b""
        while not read.endswith(b'"x"'):
            read += sock.recv(4096)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(4096) == b""


def breaks_off(port: int) -> None:
    with opened(port) as sock:
        sock.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + BODY)


def talks_nonsense(port: int) -> None:
    with opened(port) as sock:
        sock.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        while sock.recv(4096):
            pass


def greets_in_http_2(port: int) -> None:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    with opened(port) as sock:
        sock.sendall(connection.data_to_send())
        assert sock.recv(4096)


def times_out(port: int) -> None:
    """Begin a request and wait until the server has had enough."""
    with opened(port) as sock:
        sock.sendall(HEAD)
        while sock.recv(4096):
            pass


QUICK: list[Callable[[int], None]] = [
    ends_well,
    says_nothing,
    resets,
    half_closes,
    breaks_off,
    talks_nonsense,
    greets_in_http_2,
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_k01_connections_leave_nothing_however_they_end(tmp_path: Path, count: int) -> None:
    settings = 'header_timeout = "1s"\n'
    with faulty(tmp_path, {"it": "Fault"}, settings) as it:
        assert burst(it.port, 200, echo("it")).good == 200
        for end in (*QUICK, times_out):
            end(it.port)
        before = it.settled()
        made = iter(range(count))
        turn = threading.Lock()
        ended: Counter[str] = Counter()
        idle = [opened(it.port) for _ in range(100)]
        slow = [opened(it.port) for _ in range(100)]
        for sock in slow:
            sock.sendall(HEAD)

        def work() -> None:
            while True:
                with turn:
                    number = next(made, None)
                if number is None:
                    return
                end = QUICK[number % len(QUICK)]
                try:
                    end(it.port)
                except (ConnectionError, OSError) as exc:
                    ended[f"{end.__name__}: {exc!r}"] += 1

        run_all([work] * 8)
        assert not ended
        for sock in (*idle, *slow):
            assert closed_by_server(sock), "not closed"
        assert burst(it.port, 200, echo("it")).good == 200
        await_same(before, it.snapshot)


def closed_by_server(sock: socket.socket) -> bool:
    """Wait until the server closes, whatever it says before."""
    with sock:
        sock.settimeout(10)
        try:
            while sock.recv(4096):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
    return True


# Shared memory.


def npy(array: np.ndarray[Any, Any]) -> bytes:
    head = f"{{'descr':'<f4','fortran_order':False,'shape':({array.size},)}}"
    head = head.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + array.tobytes()


def floats(answer: Answer) -> np.ndarray[Any, Any]:
    start = 10 + struct.unpack_from("<H", answer.body, 8)[0]
    return np.frombuffer(answer.body, np.float32, offset=start)


class Tensors:
    """Requests with tensors of 1 MiB, each full of its own number."""

    def __init__(self, size: int = TENSOR) -> None:
        self._size = size
        self._head = npy(np.zeros(size, np.float32))[: -4 * size]

    def __call__(self, caller: Caller, number: int) -> tuple[Answer, bool]:
        return self.ask(caller, number)

    def ask(self, caller: Caller, number: int, act: str = "echo") -> tuple[Answer, bool]:
        mine = np.float32(number)
        body = self._head + mine.tobytes() * self._size
        answer = caller.post(
            f"/v1/models/it/predict?act={act}",
            body,
            "application/x-npy",
            "Accept: application/x-npy",
        )
        if answer.status != 200:
            return answer, True
        found = floats(answer)
        return answer, found.size == self._size and bool((found == mine).all())


def arena_pages(it: Instance) -> int:
    """Return the bytes of all memory files of the instance that are in memory."""
    found: dict[int, int] = {}
    for process in (*it.children("api"), *it.children("worker")):
        for fd in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                if "memfd:" in os.readlink(fd):
                    status = os.stat(fd)
                    found[status.st_ino] = status.st_blocks * 512
            except FileNotFoundError:
                continue
    return sum(found.values())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("count", "kills"), [(1000, 5), pytest.param(20_000, 50, marks=pytest.mark.slow)]
)
def test_k02_tensors_leave_no_shared_memory_though_workers_are_killed(
    tmp_path: Path, count: int, kills: int
) -> None:
    settings = '[models.it]\nslots = 2\ncrash_limit = "1000/60s"\n'
    with faulty(tmp_path, {"it": "FaultTensor"}, settings) as it:
        it.await_workers("it", 2)
        assert burst(it.port, 200, Tensors()).good == 200
        before = it.settled("worker.died")
        pages = arena_pages(it)
        killed = [0]

        def kill() -> None:
            workers = it.workers("it")
            it.kill(workers[killed[0] % len(workers)])
            killed[0] += 1
            it.await_workers("it", 2 + killed[0])

        at = [((n + 1) * count // (kills + 1), kill) for n in range(kills)]
        tally = burst(it.port, count, Tensors(), at=at)
        lost = tally.outcomes.pop("503 worker_lost", 0)
        assert set(tally.outcomes) == {"200"}, (tally.outcomes, tally.lost)
        assert tally.good + lost == count
        assert lost <= kills
        assert killed == [kills]
        assert it.restarts("it") == {"died": kills}
        # New workers' arenas are warm like the old ones'.
        assert burst(it.port, 200, Tensors()).good == 200
        await_same(before, lambda: it.snapshot("worker.died"))
        assert arena_pages(it) <= pages + 16 * 1024 * 1024
        assert it.arena_bytes("it") == 0


def test_g09_an_input_belongs_to_its_request_alone(tmp_path: Path) -> None:
    with faulty(tmp_path, {"it": "FaultTensor"}) as it:
        caller, tensors = Caller(it.port), Tensors()
        for act in ("write", "force"):
            answer, _ = tensors.ask(caller, 1, act)
            assert (answer.status, answer.code) == (500, "plugin_failed"), act
        answer, right = tensors.ask(caller, 2, "keep")
        assert (answer.status, right) == (200, True)
        for number in range(3, 30):
            answer, right = tensors(caller, number)
            assert (answer.status, right) == (200, True)
        tensors.ask(caller, 30, "forget")
        caller.close()


@pytest.mark.timeout(60)
def test_k02_a_killed_worker_that_held_inputs_gives_them_back(tmp_path: Path) -> None:
    """A block that a killed worker held for ever would fill the arena after 512 of them."""
    settings = '[models.it]\ncrash_limit = "1000/60s"\n'
    with faulty(tmp_path, {"it": "FaultTensor"}, settings) as it:
        caller, tensors = Caller(it.port), Tensors()
        tensors.ask(caller, 0)
        before = it.settled("worker.died")
        for number in range(8):
            for _ in range(4):
                answer, right = tensors.ask(caller, number, "keep")
                assert (answer.status, right) == (200, True)
            answer, _ = tensors.ask(caller, number, "die")
            assert (answer.status, answer.code) == (503, "worker_lost")
            assert it.arena_bytes("it") == 0
        it.await_workers("it", 9)
        assert tensors.ask(caller, 0)[1]
        caller.close()
        await_same(before, lambda: it.snapshot("worker.died"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("cycles", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_k07_killed_instances_leave_no_names(tmp_path: Path, cycles: int) -> None:
    names = set(os.listdir("/dev/shm"))
    for cycle in range(cycles):
        folder = tmp_path / str(cycle)
        folder.mkdir()
        with faulty(folder, {"it": "FaultTensor"}) as it:
            caller = Caller(it.port)
            assert Tensors().ask(caller, 1)[1]
            assert set(os.listdir("/dev/shm")) == names
            children = psutil.Process(it.pid).children(recursive=True)
            it.kill(it.pid)
            for child in children:
                await_gone(child.pid)
            caller.close()
    assert set(os.listdir("/dev/shm")) == names
