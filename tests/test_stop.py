"""How a server of real models ends, what it does with those in flight, and what it never runs."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import anyio
import h2raw
import httpx2
import live
import pytest

MODEL = '''
import time
from pathlib import Path

from atomserve import Wrapper


class Sleeps(Wrapper):
    """Never return."""

    def predict(self, mark: str) -> int:
        Path(mark).touch()
        while True:
            time.sleep(60)


class Spins(Wrapper):
    """Never return, nor let go of the interpreter."""

    def predict(self, mark: str) -> int:
        Path(mark).touch()
        while True:
            pass


class Clings(Wrapper):
    """Never let go of the interpreter at all."""

    def predict(self, mark: str) -> int:
        Path(mark).touch()
        return sum(iter(int, 1))


class Marks(Wrapper):
    """Take a while, and leave a mark when it has begun."""

    timeout = 0.4

    def predict(self, mark: str, seconds: float) -> float:
        Path(mark).touch()
        time.sleep(seconds)
        return seconds


class LateUnload(Wrapper):
    """Do not let go."""

    def predict(self, mark: str) -> int:
        Path(mark).touch()
        return 1

    def unload(self) -> None:
        time.sleep(60)
'''


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def ask(client: httpx2.Client, model: str, **inputs: object) -> httpx2.Response:
    return client.post(f"/v1/models/{model}/predict", json=inputs)


def curl(server: live.Live, model: str, *, http2: bool, **inputs: object) -> tuple[int, str]:
    """Ask as a client does that goes on reading after a GOAWAY, and return status and body."""
    version = "--http2-prior-knowledge" if http2 else "--http1.1"
    url = f"{server.url}/v1/models/{model}/predict"
    command = ["curl", "-sS", "-m", "15", version, "--json", json.dumps(inputs)]
    told = subprocess.check_output([*command, "-w", "\n%{http_code}", url], text=True)
    body, _, status = told.rpartition("\n")
    return int(status), body


def test_50_requests_in_flight_are_answered_after_sigterm(tmp_path: Path) -> None:
    arguments = ("--plugins", "echo_sleep", "--slots", "2", "--drain-delay", "300ms")
    capacity = "models.echo_sleep.capacity = 25\n"
    limits = httpx2.Limits(max_connections=100)
    with (
        live.live(tmp_path, *arguments, toml=capacity) as server,
        server.client(limits=limits) as client,
    ):
        with ThreadPoolExecutor(50) as pool:
            inflight: list[Future[httpx2.Response]] = [
                pool.submit(ask, client, "echo_sleep", seconds=1.0) for _ in range(50)
            ]
            time.sleep(0.5)  # nothing tells how many of them have begun, only how many wait
            assert client.get("/v1/models/echo_sleep").json()["queue"]["waiting"] == 0
            assert not any(each.done() for each in inflight)
            sent = server.signal(signal.SIGTERM)
            status = 200
            while status == 200:
                status = client.get("/readyz").status_code
            unready = time.monotonic() - sent
            answers = [each.result() for each in inflight]
        assert server.wait() == 0
    print(f"not ready after {unready * 1000:.1f} ms")
    assert status == 503
    assert unready < 0.1
    assert [answer.status_code for answer in answers] == [200] * 50
    assert [answer.json() for answer in answers] == [1.0] * 50
    assert "Stopped." in server.printed


@pytest.mark.both_servers
@pytest.mark.debian("curl")
@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("model", ["Sleeps", "Spins"])
def test_ctrl_c_ends_a_model_that_never_returns(folder: Path, model: str, http2: bool) -> None:
    arguments = ("--plugins", f"./model.py:{model}", "--drain-timeout", "1s")
    mark = folder / "mark"
    with (
        live.live(folder, *arguments) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        stuck = pool.submit(curl, server, model.lower(), http2=http2, mark=str(mark))
        while not mark.exists():
            time.sleep(0.005)
        sent = server.signal(signal.SIGINT)
        code = server.wait()
        took = time.monotonic() - sent
        status, told = stuck.result()
    print(f"{model}: gone after {took:.2f} s")
    assert code == 0
    assert took < 1 + 1 + 1.5  # the drain, the model's grace, a busy machine
    assert (status, json.loads(told)["code"]) == (503, "draining")
    assert "Stopped; 1 requests were cut off." in server.printed


def test_ctrl_c_ends_a_model_that_keeps_the_interpreter_to_itself(folder: Path) -> None:
    arguments = ("--plugins", "./model.py:Clings", "--drain-timeout", "500ms")
    unload = ("--unload-timeout", "100ms")
    mark = folder / "mark"
    with live.live(folder, *arguments, *unload) as server, server.client() as client:
        stuck = threading.Thread(target=lambda: swallow(client, mark))
        stuck.start()
        while not mark.exists():
            time.sleep(0.005)
        sent = server.signal(signal.SIGINT)
        server.wait()
        took = time.monotonic() - sent
        stuck.join()
    # Nothing in that process runs any more: its parent kills it at the hard end.
    assert took < 0.5 + 0.1 + 2 + 1.5


def swallow(client: httpx2.Client, mark: Path) -> None:
    with suppress(httpx2.TransportError):
        ask(client, "clings", mark=str(mark))


def test_a_second_ctrl_c_does_not_wait(folder: Path) -> None:
    arguments = ("--plugins", "./model.py:Sleeps", "--drain-timeout", "60s")
    mark = folder / "mark"
    with (
        live.live(folder, *arguments) as server,
        server.client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        stuck = pool.submit(ask, client, "sleeps", mark=str(mark))
        while not mark.exists():
            time.sleep(0.005)
        server.signal(signal.SIGINT)
        server.await_line(lambda line: line.startswith("Stopping"))
        sent = server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert time.monotonic() - sent < 1.5
        assert stuck.result().json()["code"] == "draining"


def test_an_unload_that_never_returns_is_not_waited_for(folder: Path) -> None:
    arguments = ("--plugins", "./model.py:LateUnload", "--unload-timeout", "300ms")
    with live.live(folder, *arguments) as server:
        sent = server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert time.monotonic() - sent < 2.5


def test_every_process_is_gone_after_the_end(tmp_path: Path) -> None:
    with live.live(tmp_path, "--plugins", "echo_tiny") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()]
        server.signal(signal.SIGINT)
        assert server.wait() == 0
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# What is never run.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("never")
    (folder / "model.py").write_text(MODEL)
    plugins = ("--plugins", "echo_sleep,./model.py:Marks")
    with live.live(folder, *plugins, toml="models.echo_sleep.slots = 10\n") as running:
        yield running


def test_a_request_whose_deadline_passes_in_the_lane_is_never_run(
    server: live.Live, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, client, "marks", mark=str(first), seconds=0.8)
        while not first.exists():
            time.sleep(0.005)
        waited = ask(client, "marks", mark=str(second), seconds=0.0)
        assert (waited.status_code, waited.json()["code"]) == (504, "deadline_exceeded")
        assert running.result().status_code == 504
        third = ask(client, "marks", mark=str(tmp_path / "third"), seconds=0.0)
        while third.status_code == 504:
            third = ask(client, "marks", mark=str(tmp_path / "third"), seconds=0.0)
    assert third.status_code == 200
    assert not second.exists()


def test_a_request_whose_client_leaves_the_lane_is_never_run(
    server: live.Live, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        pool.submit(ask, client, "marks", mark=str(first), seconds=0.3)
        while not first.exists():
            time.sleep(0.005)
        with server.client() as other, pytest.raises(httpx2.ReadTimeout):
            other.post(
                "/v1/models/marks/predict",
                json={"mark": str(second), "seconds": 0.0},
                timeout=0.1,
            )
        while client.get("/v1/models/marks").json()["queue"]["waiting"]:
            time.sleep(0.005)
        while ask(client, "marks", mark=str(tmp_path / "third"), seconds=0.0).status_code != 200:
            pass
    assert not second.exists()


@pytest.mark.anyio
async def test_10_requests_of_1_second_share_a_connection(server: live.Live) -> None:
    body = json.dumps({"seconds": 1.0}).encode()
    fields = (("content-type", "application/json"), ("content-length", str(len(body))))
    with anyio.fail_after(15):
        async with h2raw.connect(server.port) as client:
            began = time.monotonic()
            streams = []
            for _ in range(10):
                path = "/v1/models/echo_sleep/predict"
                stream = await client.request(path, *fields, method="POST", end=False)
                await client.data(stream, body, end=True)
                streams.append(stream)
            answers = [await client.answer(stream) for stream in streams]
            took = time.monotonic() - began
    print(f"10 requests of 1 s on one connection: {took:.2f} s")
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"1.0")] * 10
    assert took < 5
