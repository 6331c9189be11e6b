"""The server granian: what it needs, what it says, and that a drain loses nothing on either."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import live
import pytest
from instances import serving

GRANIAN = {"server": "granian"}
JSON = {"content-type": "application/json"}


def curl(*arguments: str) -> str:
    return subprocess.check_output(["curl", "-sS", "-m", "10", *arguments], text=True)


def run_with(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    """Run on a Granian that ``module`` stands in for, until it ends."""
    (folder / "granian.py").write_text(module)
    (folder / "model.py").write_text(
        "from atomserve import Wrapper\n\n\nclass M(Wrapper):\n"
        '    """Give it back."""\n\n    def predict(self, x: int) -> int:\n        return x\n'
    )
    path = {"PYTHONPATH": f"{folder}:{live.ROOT}"}
    command = [sys.executable, "-m", "atomserve", "run", "--server", "granian", "--port", "0"]
    return subprocess.run(
        [*command, "--plugins", "./model.py:M"],
        cwd=folder,
        env=live.environment() | path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_without_the_package_it_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = run_with(tmp_path, "raise ImportError('not here')\n")
    assert ended.returncode == 2
    errors = [line for line in ended.stderr.splitlines() if "error" in line]
    assert errors == ["atomserve: error: server granian needs: pip install 'atomserve[granian]'"]
    assert "Traceback" not in ended.stderr


def test_a_version_that_nobody_has_tested_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from structlog.testing import capture_logs

    from atomserve.server import granian_adapter

    for version, warned in (("2.7.1", True), ("2.8.7", False), ("2.80.0", True), ("3.0", True)):
        with capture_logs() as logs:
            granian_adapter.warn_of(version)
        assert [each["event"] for each in logs] == ["server.untested"] * warned


def test_no_answer_says_granian() -> None:
    with serving(GRANIAN) as instance:
        for version in ("--http1.1", "--http2-prior-knowledge"):
            told = curl("-i", version, f"{instance.url}/version").lower()
            assert "server: atomserve\n" in told.replace("\r", "")
            assert "granian" not in told
        assert instance.wait_for("Bound")
        instance.signal(signal.SIGINT)
        assert instance.wait() == 0
    assert [line for line in instance.errors.splitlines() if "server.ended" not in line] == []


def test_a_large_answer_is_whole(tmp_path: Path) -> None:
    size = 5_000_001
    with serving(GRANIAN) as instance:
        for version in ("--http1.1", "--http2-prior-knowledge"):
            target = tmp_path / version
            curl(version, "-o", str(target), f"{instance.url}/big?n={size}")
            assert target.read_bytes() == bytes(size)


def test_who_takes_nothing_is_left_alone_by_the_kernel() -> None:
    settings = {**GRANIAN, "limits": {"send_stall": 1.0}}
    with serving(settings) as instance:
        pid = instance.wait_for("Started")["pid"]
        before = connections(pid)
        with instance.send("/big?n=20000000") as reader:
            instance.await_in_flight(1)
            await_connections(pid, before)
            with pytest.raises(ConnectionResetError):
                while reader.recv(1 << 20):
                    pass


def connections(pid: int) -> int:
    folder = Path(f"/proc/{pid}/fd")
    return sum(
        os.path.realpath(each).rpartition("/")[2][:6] == "socket" for each in folder.iterdir()
    )


def await_connections(pid: int, count: int) -> None:
    deadline = time.monotonic() + 15
    while connections(pid) > count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_api_processes_serve_and_a_killed_one_is_replaced() -> None:
    with serving({**GRANIAN, "api_processes": 2}) as instance:
        first, second = (instance.wait_for("Started", index=index)["pid"] for index in (0, 1))
        seen = set[int]()
        while len(seen) < 2:
            seen.add(int(instance.get("/pid")[1]))
        assert seen == {first, second}
        os.kill(first, signal.SIGKILL)
        third = instance.wait_for("Started", index=0, count=2)["pid"]
        while int(instance.get("/pid")[1]) != third:
            pass


# Drains.


class Client:
    """Asks on a kept connection, again and again, until nobody listens; counts what is lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = 0
        self.lost: list[Exception] = []
        self.begun = threading.Event()

    def run(self) -> None:
        kept: http.client.HTTPConnection | None = None
        while True:
            if kept is None:
                kept = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
                try:
                    kept.connect()
                except ConnectionRefusedError:
                    return
            try:
                kept.request("POST", "/v1/models/echo_tiny/predict", b'{"x": 1.5}', JSON)
                response = kept.getresponse()
                assert response.read() == b"1.5"
            except (OSError, http.client.HTTPException) as exc:
                self.lost.append(exc)
                return
            self.answered += 1
            self.begun.set()
            if response.will_close:
                kept.close()
                kept = None


@pytest.mark.slow  # it fails now and then: see "Which server?" in the documentation
@pytest.mark.both_servers
def test_d03_a_drain_under_http_1_load_loses_nothing(tmp_path: Path) -> None:
    arguments = ("--plugins", "echo_tiny", "--executor", "thread", "--drain-delay", "300ms")
    with live.live(tmp_path, *arguments) as server, ThreadPoolExecutor(8) as pool:
        clients = [Client(server.port) for _ in range(8)]
        running = [pool.submit(client.run) for client in clients]
        for client in clients:
            assert client.begun.wait(10)
        server.signal(signal.SIGTERM)
        for each in running:
            each.result()
        assert server.wait() == 0
    print(f"{sum(client.answered for client in clients)} answered")
    assert [client.lost for client in clients] == [[]] * 8


@pytest.mark.slow  # it fails now and then, too
@pytest.mark.debian("nghttp2-client")
def test_d03_a_drain_under_http_2_load_loses_nothing() -> None:
    with serving({**GRANIAN, "drain_delay": 0.3}) as instance:
        command = ["h2load", "-c8", "-m10", "-n1000000", f"{instance.url}/sleep?s=0.01"]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        instance.await_in_flight(40)
        instance.signal(signal.SIGTERM)
        told = load.communicate(timeout=20)[0]
        assert instance.wait() == 0
    (line,) = [line for line in told.splitlines() if line.startswith("requests:")]
    counts = {words.split()[1]: int(words.split()[0]) for words in line[9:].split(",")}
    assert counts["started"] == counts["done"] == counts["succeeded"] > 0


def test_a_silent_connection_does_not_keep_others_from_being_served() -> None:
    with serving(GRANIAN) as instance:
        silent = [socket.create_connection(instance.address) for _ in range(50)]
        assert instance.get("/version")[0] == 200
        for each in silent:
            each.close()
