"""Streams of a real server: events and lines, their ends and errors, clients that leave."""

import itertools
import json
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import h2raw
import httpx2
import live
import pytest

SSE, LINES = "text/event-stream", "application/x-ndjson"

MODEL = '''
import time
from collections.abc import Iterator
from pathlib import Path

from atomserve import BadRequest, Wrapper


class Ticks(Wrapper):
    """Count, and fail as asked."""

    slots = 4  # one that has stalled is busy until its thread returns
    timeout = 0.5

    def predict(self, to: int, fail: str = "") -> Iterator[int]:
        for number in range(to):
            yield number
        if fail == "refuse":
            raise BadRequest("no more")
        if fail == "break":
            raise RuntimeError("a secret")
        if fail == "stall":
            time.sleep(0.8)
            yield to


class Endless(Wrapper):
    """Count until nobody listens; then leave a mark."""

    slots = 4

    def predict(self, mark: str, size: int = 1, delay: float = 0.02) -> Iterator[str]:
        Path(mark).touch()
        try:
            while True:
                time.sleep(delay)
                yield "x" * size
        finally:
            Path(mark).unlink()


class Counts(Wrapper):
    """Count answers as they are asked for."""

    def predict(self, log: str) -> Iterator[str]:
        with Path(log).open("ab", buffering=0) as file:
            for _ in range(1000):
                file.write(b".")
                yield "x" * 10_000
'''
PLUGINS = "echo_stream,./model.py:Ticks,./model.py:Endless,./model.py:Counts"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "model.py").write_text(MODEL)
    with live.live(
        folder, "--plugins", PLUGINS, "--event-silence", "200ms", "--drain-timeout", "1s"
    ) as running:
        yield running


def events(text: str) -> list[dict[str, str]]:
    """Take a stream of events apart as an EventSource does."""
    found = []
    for block in text.split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                event[name] = value.removeprefix(" ")
        if event:
            found.append(event)
    return found


def ask(client: httpx2.Client, model: str, accept: str = SSE, **inputs: Any) -> httpx2.Response:
    return client.post(f"/v1/models/{model}/predict", json=inputs, headers={"accept": accept})


@pytest.mark.parametrize("http2", [False, True])
def test_events_are_numbered_from_0_and_end_with_end(server: live.Live, http2: bool) -> None:
    with server.client(http1=not http2, http2=http2) as client:
        answer = ask(client, "echo_stream", text="a\nb", count=20)
    assert answer.headers["content-type"] == f"{SSE}; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    *items, end = events(answer.text)
    assert [int(item["id"]) for item in items] == list(range(20))
    assert [json.loads(item["data"]) for item in items] == [
        {"index": n, "text": "a\nb"} for n in range(20)
    ]
    assert end == {"event": "end", "data": ""}


@pytest.mark.parametrize("count", [0, 1, 100])
def test_lines_hold_data_and_then_the_end(server: live.Live, count: int) -> None:
    with server.client() as client:
        answer = ask(client, "echo_stream", LINES, text="世", count=count)
    assert answer.headers["content-type"] == LINES
    *items, end = map(json.loads, answer.text.splitlines())
    assert items == [{"data": {"index": n, "text": "世"}} for n in range(count)]
    assert end == {"end": True}


def test_each_event_comes_when_it_is_there(server: live.Live) -> None:
    with server.client() as client:
        request = {"text": "a", "count": 3, "delay": 0.15}
        path = "/v1/models/echo_stream/predict"
        with client.stream("POST", path, json=request) as answer:
            lines = filter(lambda line: line.startswith("data: "), answer.iter_lines())
            arrived = [time.monotonic() for _ in lines]
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(arrived))


def test_comments_fill_the_silence_of_events(server: live.Live) -> None:
    with server.client() as client:
        answer = ask(client, "echo_stream", text="a", count=1, delay=0.5)
        assert answer.text.startswith(":\n\n:\n\nid: 0\n")
        lines = ask(client, "echo_stream", LINES, text="a", count=1, delay=0.5)
        assert len(lines.text.splitlines()) == 2


@pytest.mark.parametrize(
    ("fail", "code"),
    [("refuse", "bad_request"), ("break", "plugin_failed"), ("stall", "deadline_exceeded")],
)
def test_a_failure_on_the_way_is_the_last_event(server: live.Live, fail: str, code: str) -> None:
    with server.client() as client:
        answer = ask(client, "ticks", to=2, fail=fail)
        assert answer.status_code == 200
        one, two, last = events(answer.text)
        assert (one["data"], two["data"], last["event"]) == ("0", "1", "error")
        assert json.loads(last["data"])["code"] == code
        assert "secret" not in answer.text
        answer = ask(client, "ticks", LINES, to=2, fail=fail)
        assert [json.loads(line) for line in answer.text.splitlines()[:2]] == [
            {"data": 0},
            {"data": 1},
        ]
        assert json.loads(answer.text.splitlines()[2])["error"]["code"] == code


def test_a_failure_before_the_first_answer_is_an_ordinary_one(server: live.Live) -> None:
    with server.client() as client:
        answer = ask(client, "ticks", to=0, fail="refuse")
        assert (answer.status_code, answer.json()["detail"]) == (400, "no more")
        answer = ask(client, "ticks", to="x")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def until(holds: Any, within: float = 5.0) -> float:
    """Wait until ``holds()``; return the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within
        time.sleep(0.005)
    return time.monotonic() - began


def opened(server: live.Live, body: dict[str, Any], model: str = "endless") -> socket.socket:
    """Begin a stream over HTTP/1.1 and return the connection that it comes on."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sent = json.dumps(body).encode()
    head = (
        f"POST /v1/models/{model}/predict HTTP/1.1\r\nhost: test\r\n"
        f"content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
    )
    sock.sendall(head.encode() + sent)
    return sock


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_closes_the_generator(
    server: live.Live, tmp_path: Path, how: str
) -> None:
    mark = tmp_path / "mark"
    sock = opened(server, {"mark": str(mark)})
    assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert mark.exists()
    if how == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    assert until(lambda: not mark.exists()) < 1


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["stream", "connection"])
async def test_a_client_that_leaves_on_http_2_closes_the_generator(
    server: live.Live, tmp_path: Path, how: str
) -> None:
    mark = tmp_path / "mark"
    body = json.dumps({"mark": str(mark)}).encode()
    with anyio.fail_after(10):
        async with h2raw.connect(server.port) as client:
            fields = (("content-type", "application/json"), ("content-length", str(len(body))))
            path = "/v1/models/endless/predict"
            stream = await client.request(path, *fields, method="POST", end=False)
            await client.data(stream, body, end=True)
            await client.streams[stream].answered.wait()
            assert mark.exists()
            if how == "stream":
                client.connection.reset_stream(stream)
                await client.flush()
                assert await anyio.to_thread.run_sync(until, lambda: not mark.exists()) < 1
        assert await anyio.to_thread.run_sync(until, lambda: not mark.exists()) < 1


def test_a_slow_reader_holds_up_its_generator(server: live.Live, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with opened(server, {"log": str(log)}, "counts") as sock:
        sock.recv(1)
        seen = 0
        while seen != (seen := log.stat().st_size):
            time.sleep(0.3)
        assert 0 < seen < 1000
        text = b""
        while b"event: end" not in text:
            text = text[-100:] + sock.recv(1 << 20)
    assert log.stat().st_size == 1000


@pytest.mark.both_servers
def test_a_drain_tells_streams_when_to_come_back(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    flags = ("--drain-delay", "0", "--drain-timeout", "500ms")
    with live.live(tmp_path, "--plugins", "./model.py:Endless", *flags) as server:
        mark = tmp_path / "mark"
        with opened(server, {"mark": str(mark)}) as sock:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            server.signal(signal.SIGTERM)
            text = b""
            while piece := sock.recv(65536):
                text += piece
        ends = text.decode().partition("event: shutdown\n")[2].partition("\n\n")[0].split("\n")
        assert ends[0] == "retry: 1000"
        assert json.loads(ends[1].removeprefix("data: "))["code"] == "draining"
        assert text.endswith(b"0\r\n\r\n")
        assert server.wait() == 0
    assert not mark.exists()
