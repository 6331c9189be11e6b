"""Every API process tells of the whole instance: to Prometheus, to programs, to people."""

from __future__ import annotations

import json
import os
import random
import signal
import string
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import live
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from atomserve.testing import serve
from atomserve.wrapper import Wrapper

MODEL = """
import ctypes


from atomserve import Text, Wrapper


class Greet(Wrapper):
    def predict(self, name: Text) -> Text:
        return f"Hello, {name}!"


class Hog(Wrapper):
    def predict(self, seconds: float) -> float:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # holds the interpreter
        return seconds


"""
TOML = """
api_processes = 2
drain_delay = 0

[models.greet]
plugin = "./model.py:Greet"
slots = 2

[models.hog]
plugin = "./model.py:Hog"
"""
OPENMETRICS = "application/openmetrics-text"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "model.py").write_text(MODEL)
    with live.live(folder, toml=TOML) as server:
        yield server


class Connection:
    """One connection, and so one API process: its index is ``index``."""

    def __init__(self, server: live.Live) -> None:
        self.client = server.client()
        asked = self.status()["api_processes"]
        (self.index,) = [api["index"] for api in asked if api["in_flight"]]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/v1/status").raise_for_status().json()
        return found

    def text(self, accept: str = "") -> str:
        return self.client.get("/metrics", headers={"Accept": accept}).raise_for_status().text

    def samples(self) -> Samples:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in read_text(self.text())
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        return sum(
            value
            for (found, where), value in self.samples().items()
            if found == name and wanted <= set(where)
        )

    def slots(self, model: str) -> list[dict[str, Any]]:
        slots: list[dict[str, Any]] = self.client.get(f"/v1/models/{model}").json()["slots"]
        return slots

    def greet(self) -> httpx2.Response:
        return self.client.post("/v1/models/greet/predict", json={"name": "you"})


@pytest.fixture
def both(server: live.Live) -> Iterator[tuple[Connection, Connection]]:
    """A connection to each API process."""
    found: dict[int, Connection] = {}
    spent = []
    for _ in range(200):
        connection = Connection(server)
        spent.append(connection)
        found.setdefault(connection.index, connection)
        if len(found) == 2:
            break
    yield found[0], found[1]
    for connection in spent:
        connection.client.close()


def until(found: Callable[[], Any], *, within: float = 10.0) -> Any:
    """Ask again and again; nothing tells from outside when it happens."""
    end = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def test_whoever_is_asked_has_counted_the_requests_of_all(
    server: live.Live, both: tuple[Connection, Connection]
) -> None:
    one, other = both
    name, where = "atomserve_requests_total", {"model": "greet", "status": "200"}
    before = one.total(name, **where)
    for _ in range(25):
        with server.client() as client:
            client.post("/v1/models/greet/predict", json={"name": "you"}).raise_for_status()
    for connection in both * 13:
        if one.total(name, **where) - before >= 50:
            break
        connection.greet().raise_for_status()
    for _ in range(50 - int(one.total(name, **where) - before)):
        one.greet().raise_for_status()
    assert one.total(name, **where) - before == 50
    assert other.total(name, **where) - before == 50
    for connection in both:
        assert connection.total("atomserve_request_duration_seconds_count", model="greet") >= 50
        assert connection.total("atomserve_queue_wait_seconds_count", model="greet") >= 50
        assert connection.total("atomserve_worker_requests_total", model="greet") >= 50
        assert connection.total("atomserve_requests_in_flight") == 1  # the scrape itself
        assert connection.total("atomserve_partial") == 0


def test_errors_are_counted_by_their_code(both: tuple[Connection, Connection]) -> None:
    one, other = both
    where = {"model": "greet", "status": "422", "code": "invalid"}
    before = other.total("atomserve_requests_total", **where)
    one.client.post("/v1/models/greet/predict", json={"name": 1})
    assert other.total("atomserve_requests_total", **where) == before + 1


def test_every_process_tells_its_memory_time_and_descriptors(
    both: tuple[Connection, Connection],
) -> None:
    samples = both[0].samples()
    processes = {
        frozenset(where)
        for (name, where) in samples
        if name == "atomserve_process_resident_memory_bytes"
    }
    kinds = sorted(dict(where)["process"] for where in processes)
    assert kinds == ["api", "api", "supervisor", "worker", "worker", "worker"]
    for where in processes:
        assert samples["atomserve_process_resident_memory_bytes", where] > 10e6
        assert samples["atomserve_process_cpu_seconds_total", where] > 0
        assert samples["atomserve_process_open_fds", where] > 3


def test_openmetrics_is_there_for_who_likes_it_best(both: tuple[Connection, Connection]) -> None:
    client = both[0].client
    accept = f"{OPENMETRICS};version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(f"{OPENMETRICS}; version=1.0.0")
    names = {family.name for family in read_openmetrics(answer.text)}
    assert {"atomserve_requests", "atomserve_request_duration_seconds"} <= names
    for accept in ("", "*/*", "text/html", "text/plain"):
        answer = client.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.debian("prometheus")
def test_promtool_finds_nothing_to_criticise(both: tuple[Connection, Connection]) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=both[0].text(),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_strangers_make_no_series(both: tuple[Connection, Connection]) -> None:
    one, other = both
    chance = random.Random(20)

    def word() -> str:
        return "".join(chance.choices(string.ascii_letters, k=8))

    def knock(path: str, method: str) -> None:
        headers = {"User-Agent": word(), word(): word()}
        assert one.client.request(method, path, headers=headers).status_code in (400, 404, 405)

    paths = ("/{}", "/v1/models/{}", "/v1/models/{}/predict", "/v1/models/greet/{}", "/readyz/{}")
    for path in paths:
        knock(path.format(word()), "DELETE")
        knock(path.format(word()), "POST")
        one.client.get(path.format(word()))
        one.client.request(word().upper(), path.format(word()))
    before = other.samples().keys()
    for _ in range(400):
        path = chance.choice(paths).format(word())
        one.client.request(chance.choice(["GET", "POST", "DELETE", word().upper()]), path)
    assert other.samples().keys() == before


def test_a_lost_worker_is_counted_and_its_slot_told(both: tuple[Connection, Connection]) -> None:
    one, other = both
    where = {"model": "greet", "cause": "died"}
    before = other.total("atomserve_worker_restarts_total", **where)
    victim = one.slots("greet")[1]
    os.kill(victim["pid"], signal.SIGKILL)
    until(lambda: "slot 1 is restarting" in one.client.get("/readyz?verbose").text)
    assert one.client.get("/readyz").status_code == 200
    slot = one.slots("greet")[1]
    assert (slot["slot"], slot["busy"]) == (1, None)
    until(lambda: one.slots("greet")[1]["state"] == "ready")
    slot = one.slots("greet")[1]
    assert slot["pid"] != victim["pid"]
    assert slot["restarts"] == victim["restarts"] + 1
    assert other.total("atomserve_worker_restarts_total", **where) == before + 1
    until(lambda: other.total("atomserve_slots", model="greet", state="ready") == 2)
    assert "restarting" not in one.client.get("/readyz?verbose").text


def test_a_worker_that_cannot_speak_is_told_to_be_busy(
    server: live.Live, both: tuple[Connection, Connection]
) -> None:
    one, other = both
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/v1/models/hog/predict", json={"seconds": 3})
        try:
            busy = until(lambda: [s for s in other.status()["models"]["hog"]["slots"] if s["busy"]])
            assert (busy[0]["state"], busy[0]["requests"]) == ("ready", None)
            began = time.monotonic()
            assert one.total("atomserve_partial") == 1
            assert time.monotonic() - began < 1
            assert one.total("atomserve_jobs_running", model="hog") == 1
        finally:
            assert answer.result(10).status_code == 200
    assert until(lambda: other.total("atomserve_partial") == 0)


# Shown to people.


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        live.command("status", *arguments),
        env=live.environment(),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_people_get_tables(server: live.Live, both: tuple[Connection, Connection]) -> None:
    done = status(server.url)
    assert (done.returncode, done.stderr) == (0, "")
    found = both[0].status()
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ready, up ")
    assert f"supervisor {server.process.pid}" in lines[0]
    assert any(line.startswith("greet: ready, 0 of 32 waiting, 0 running") for line in lines)
    cells = [line.split() for line in lines]
    for api in found["api_processes"]:
        assert [str(api["index"]), str(api["pid"]), "ready"] in [row[:3] for row in cells]
    for slot in found["models"]["greet"]["slots"]:
        row = [str(slot["slot"]), str(slot["pid"]), "ready", "0", "of", "1"]
        assert row in [cell[:6] for cell in cells]


def test_programs_get_json(server: live.Live) -> None:
    done = status(server.url.removeprefix("http://"), "--json")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["partial"] is False
    assert [slot["slot"] for slot in found["models"]["greet"]["slots"]] == [0, 1]


def test_watching_looks_again(server: live.Live) -> None:
    with subprocess.Popen(
        live.command("status", server.url, "--watch", "--json"),
        env=live.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline())["supervisor"]["uptime"] for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
    assert looks[1] > looks[0]


@pytest.mark.parametrize(
    ("path", "said"), [("", "nothing answers at"), ("/elsewhere", "nothing is served under")]
)
def test_a_mistake_is_one_line(server: live.Live, path: str, said: str) -> None:
    done = status(f"{server.url}{path}" if path else "http://127.0.0.1:1")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"atomserve: error: {said}")
    assert (done.returncode, done.stdout) == (1, "")


# What ends other tests' server, or needs none.


def test_counters_outlive_their_process_and_a_silent_supervisor(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    toml = 'drain_delay = 0\n[models.greet]\nplugin = "./model.py:Greet"\n'
    with live.live(tmp_path, toml=toml) as server:
        connection = Connection(server)
        for _ in range(5):
            connection.greet().raise_for_status()
        assert connection.total("atomserve_requests_total", model="greet") == 5
        (before,) = connection.status()["api_processes"]
        os.kill(before["pid"], signal.SIGKILL)
        server.await_record("server.died")
        connection.client.close()
        until(lambda: _ready(server))
        connection = Connection(server)
        connection.greet().raise_for_status()
        assert connection.total("atomserve_requests_total", model="greet") == 6
        assert connection.total("atomserve_api_process_restarts_total", index="0") == 1

        server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            connection.greet().raise_for_status()
            assert connection.total("atomserve_requests_total", model="greet") == 7
            assert connection.total("atomserve_partial") == 1
            assert connection.slots("greet")[0]["state"] == "ready"
            assert time.monotonic() - began < 4
        finally:
            server.signal(signal.SIGCONT)
        until(lambda: connection.total("atomserve_partial") == 0)
        connection.client.close()


def _ready(server: live.Live) -> bool:
    with server.client() as client:
        try:
            return client.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False


class Greeter(Wrapper):
    def predict(self, name: str) -> str:
        return name


def test_without_a_supervisor_a_process_is_all_there_is() -> None:
    with serve(Greeter, prefix="/api") as client:
        client.post("/api/v1/models/greeter/predict", json={"name": "you"}).raise_for_status()
        text = client.get("/metrics").raise_for_status().text
        assert client.get("/api/metrics").status_code == 404
        found = client.get("/api/v1/status").raise_for_status().json()
    assert (found["partial"], found["ready"], found["supervisor"]) == (False, True, None)
    assert [slot["state"] for slot in found["models"]["greeter"]["slots"]] == ["ready"]
    assert 'route="/api/v1/models/{name}/predict",status="200",code=""} 1\n' in text
    assert "atomserve_partial 0\n" in text
