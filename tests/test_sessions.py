"""Sessions of a real server, with a real client: both frames, both ends, every close code."""

import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import live
import msgspec
import pytest
from one_worker import instance
from starlette.types import Message
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from atomserve.guard.client import Client
from atomserve.surfaces.requests import Entry
from atomserve.surfaces.sessions import SessionEndpoint

PATH = "/v1/models/{}/session"

MODEL = '''
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from atomserve import BadRequest, Blob, Wrapper


class Ask(msgspec.Struct):
    """What a client of `Talk` says."""

    text: str
    times: int = 1


class Talk(Wrapper):
    """Answer none, one or several times, and fail as asked."""

    slots = 20

    def session(self, inputs: Iterator[Ask]) -> Iterator[str]:
        for each in inputs:
            if each.text == "refuse":
                raise BadRequest("not this")
            if each.text == "break":
                raise RuntimeError("a secret")
            if each.text == "stop":
                return
            for _ in range(each.times):
                yield each.text
        yield "bye"


class Flood(Wrapper):
    """Say much; there is a mark while it does."""

    def session(self, inputs: Iterator[str]) -> Iterator[str]:
        mark = Path(next(inputs))
        mark.touch()
        try:
            while True:
                yield "x" * 100_000
                time.sleep(0.001)
        finally:
            mark.unlink()


class Single(Wrapper):
    """Hold the only slot."""

    queue_size = 1

    def session(self, inputs: Iterator[str]) -> Iterator[str]:
        yield from inputs


class Hasty(Wrapper):
    """Have no patience with those who wait."""

    timeout = 0.3

    def session(self, inputs: Iterator[str]) -> Iterator[str]:
        yield from inputs


class Unloadable(Wrapper):
    """Never be there."""

    def load(self, config: dict) -> None:
        raise OSError("no weights")

    def session(self, inputs: Iterator[str]) -> Iterator[str]:
        yield from inputs
'''
NAMES = ("Talk", "Flood", "Single", "Hasty", "Unloadable")
PLUGINS = ",".join(["echo", "echo_session", *(f"./model.py:{name}" for name in NAMES)])
TOML = """
readiness = "any"
drain_timeout = "1s"
cors.origins = ["https://page.example"]
limits = { body = "1MiB", send_stall = "500ms" }
models.echo_session.slots = 20
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("sessions")
    (folder / "model.py").write_text(MODEL)
    with live.live(folder, "--plugins", PLUGINS, toml=TOML) as running:
        for name in ("echo_session", "talk", "flood", "single", "hasty"):
            running.await_line(lambda line, name=name: line.startswith(f"  {name}: ready"))
        running.await_line(lambda line: line.startswith("  unloadable: failed"))
        yield running


def session(server: live.Live, model: str = "echo_session", **options: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}{PATH.format(model)}"
    return connect(url, max_size=None, close_timeout=5, proxy=None, **options)


def rest(client: ClientConnection) -> tuple[list[Any], int, str]:
    """Return the frames until the end, the close code and its reason."""
    frames = []
    try:
        while True:
            frame = client.recv(timeout=10)
            decode = msgspec.json.decode if isinstance(frame, str) else msgspec.msgpack.decode
            frames.append(decode(frame))
    except ConnectionClosed as exc:
        assert exc.rcvd is not None, "it was not closed but cut off"
        return frames, exc.rcvd.code, exc.rcvd.reason


def text(document: Any) -> str:
    return json.dumps(document)


FORMS: list[Callable[[Any], Any]] = [text, msgspec.msgpack.encode]


@pytest.mark.parametrize("form", FORMS)
def test_each_frame_is_answered_in_its_own_form(server: live.Live, form: Any) -> None:
    with session(server) as client:
        for word in ("hi", "世界", ""):
            client.send(form({"data": word}))
            frame = client.recv(timeout=10)
            decode = msgspec.json.decode if form is text else msgspec.msgpack.decode
            assert isinstance(frame, str) is (form is text)
            assert decode(frame) == {"data": word}
        client.send(form({"end": True}))
        assert rest(client) == ([{"end": True}], 1000, "")


@pytest.mark.parametrize("form", FORMS)
def test_items_may_be_objects_and_have_any_number_of_answers(server: live.Live, form: Any) -> None:
    with session(server, "talk") as client:
        for times in (0, 2, 1):
            client.send(form({"data": {"text": str(times), "times": times}}))
        client.send(form({"end": True}))
        words = ["2", "2", "1", "bye"]
        assert rest(client) == ([*({"data": word} for word in words), {"end": True}], 1000, "")


def test_either_side_may_end_it(server: live.Live) -> None:
    with session(server, "talk") as client:
        client.send(text({"end": True}))
        assert rest(client) == ([{"data": "bye"}, {"end": True}], 1000, "")
    with session(server, "talk") as client:
        client.send(text({"data": {"text": "stop"}}))
        assert rest(client) == ([{"end": True}], 1000, "")


def test_200_messages_of_20_clients_each_come_back_in_order(server: live.Live) -> None:
    def talk(number: int) -> list[str]:
        with session(server) as client:
            words = [f"{number}-{n}" for n in range(200)]
            sender = threading.Thread(
                target=lambda: [client.send(text({"data": word})) for word in words]
            )
            sender.start()
            answers = [json.loads(client.recv(timeout=10))["data"] for _ in words]
            sender.join()
            assert answers == words
            client.send(text({"end": True}))
            assert rest(client) == ([{"end": True}], 1000, "")
            return answers

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(talk, range(20)))
    assert sum(map(len, found)) == 4000


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("frames", "close", "code"),
    [
        (['{"data":'], 1008, "bad_request"),
        (["[]"], 1008, "bad_request"),
        (["{}"], 1008, "bad_request"),
        (['{"data": NaN}'], 1008, "bad_request"),
        ([f'{{"data": {DEEP}}}'], 1008, "bad_request"),
        ([b"\x81\xa4data" + b"\x91" * 100_000], 1008, "bad_request"),
        ([b"\xc1"], 1008, "bad_request"),
        ([""], 1008, "bad_request"),
        ([b""], 1008, "bad_request"),
        (['{"data": 5}'], 1008, "invalid"),
        (['{"data": "a"}', b"\x81\xa4data\xa1a"], 1008, "bad_request"),
        (['{"data": "' + "x" * 2**20 + '"}'], 1009, "too_large"),
    ],
    ids=range(12),
)
def test_a_frame_at_fault_ends_the_session_with_its_reason(
    server: live.Live, frames: list[Any], close: int, code: str
) -> None:
    with session(server) as client:
        for frame in frames:
            client.send(frame)
        found, closed, reason = rest(client)
    assert (closed, reason) == (close, code)
    problem = found[-1]["error"]
    assert (problem["type"], problem["code"]) == (f"urn:atomserve:problem:{code}", code)


@pytest.mark.parametrize(
    ("sent", "close"),
    [
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # text that is not UTF-8
        (b"\x83\x82\0\0\0\0ab", 1002),  # an opcode that does not exist
        (b"\x81\x02{}", 1002),  # not masked
        (b"\x09\x80\0\0\0\0", 1002),  # a ping in fragments
    ],
)
def test_what_breaks_the_protocol_is_closed_with_the_protocols_code(
    server: live.Live, sent: bytes, close: int
) -> None:
    with session(server) as client:
        client.socket.sendall(sent)
        assert rest(client)[1] == close


def test_a_message_far_over_the_limit_is_not_even_read(server: live.Live) -> None:
    with session(server) as client:
        client.send('{"data": "' + "x" * 2**22 + '"}')
        assert rest(client)[1] == 1009


def test_a_failing_model_ends_the_session_without_its_text(server: live.Live) -> None:
    for word, close, code in (
        ("refuse", 1008, "bad_request"),
        ("break", 1011, "plugin_failed"),
    ):
        with session(server, "talk") as client:
            client.send(text({"data": {"text": word}}))
            frames, closed, reason = rest(client)
        assert (closed, reason) == (close, code)
        assert "secret" not in str(frames)
    error_id = frames[0]["error"]["instance"].rpartition(":")[2]
    assert "a secret" in server.await_record("plugin.failed", error_id=error_id)["exception"]


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [
        (PATH.format("echo_session"), "https://evil.example", 403),
        (PATH.format("echo_session"), "null", 403),
        (PATH.format("echo"), None, 400),
        (PATH.format("nobody"), None, 404),
        ("/v1/models/echo/predict", None, 405),
        ("/v1/models", None, 404),
    ],
)
def test_a_handshake_that_cannot_be_is_refused(
    server: live.Live, path: str, origin: Any, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{server.port}{path}", origin=origin, proxy=None)
    assert refused.value.response.status_code == status


def test_pages_of_this_server_and_of_listed_origins_may_connect(server: live.Live) -> None:
    for origin in (server.url, "https://page.example", None):
        options = {} if origin is None else {"origin": origin}
        with session(server, **options) as client:
            client.send(text({"end": True}))
            assert rest(client)[1] == 1000


def test_a_model_that_is_not_there_says_try_later(server: live.Live) -> None:
    with session(server, "unloadable") as client:
        frames, code, reason = rest(client)
    assert (code, reason) == (1013, "not_ready")
    assert frames[0]["error"]["code"] == "not_ready"


def test_a_full_model_says_try_later(server: live.Live) -> None:
    with session(server, "single") as first, session(server, "single") as second:
        first.send(text({"data": "a"}))
        assert json.loads(first.recv(timeout=10)) == {"data": "a"}
        second.send(text({"data": "b"}))
        with server.client() as client:
            while client.get("/v1/models/single").json()["queue"]["waiting"] < 1:
                time.sleep(0.01)
        with session(server, "single") as third:
            frames, code, reason = rest(third)
        assert (code, reason) == (1013, "overloaded")
        assert frames[0]["error"]["code"] == "overloaded"
        first.send(text({"end": True}))
        assert rest(first)[1] == 1000
        assert json.loads(second.recv(timeout=10)) == {"data": "b"}


def test_who_waits_too_long_for_a_slot_is_told_to_try_later(server: live.Live) -> None:
    with session(server, "hasty") as first, session(server, "hasty") as second:
        first.send(text({"data": "a"}))
        first.recv(timeout=10)
        second.send(text({"data": "b"}))
        assert rest(second)[1:] == (1013, "deadline_exceeded")
        # The first one was not in a hurry at all.
        first.send(text({"data": "c"}))
        assert json.loads(first.recv(timeout=10)) == {"data": "c"}


def gone(mark: Path, within: float) -> None:
    """Wait until there is no ``mark``."""
    began = time.monotonic()
    while mark.exists():
        assert time.monotonic() - began < within
        time.sleep(0.005)


def raw(server: live.Live, model: str, *frames: Any, request_id: str = "raw") -> socket.socket:
    """Begin a session whose client reads nothing by itself."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    lines = (
        f"GET {PATH.format(model)} HTTP/1.1",
        "Host: test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"X-Request-ID: {request_id}",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "",
        "",
    )
    sock.sendall("\r\n".join(lines).encode())
    assert sock.recv(12) == b"HTTP/1.1 101"
    for frame in frames:
        body = text(frame).encode()
        length = bytes([len(body)]) if len(body) < 126 else struct.pack("!BH", 126, len(body))
        sock.sendall(b"\x81" + bytes([length[0] | 0x80]) + length[1:] + bytes(4) + body)
    return sock


def vanish(sock: socket.socket) -> None:
    """Leave with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("last", [[], [{"end": True}]])
def test_a_client_that_vanishes_frees_its_slot(
    server: live.Live, tmp_path: Path, last: list[Any]
) -> None:
    mark = tmp_path / "mark"
    sock = raw(server, "flood", {"data": str(mark)}, *last)
    while not mark.exists():
        time.sleep(0.005)
    vanish(sock)
    gone(mark, within=1)


def test_an_idle_client_that_vanishes_frees_its_slot(server: live.Live) -> None:
    first = raw(server, "single", {"data": "a"})
    while b'{"data":"a"}' not in first.recv(65536):
        pass
    vanish(first)
    began = time.monotonic()
    with session(server, "single") as second:
        second.send(text({"data": "b"}))
        assert json.loads(second.recv(timeout=10)) == {"data": "b"}
    assert time.monotonic() - began < 1


def test_a_reader_that_stalls_is_dropped(server: live.Live, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with raw(server, "flood", {"data": str(mark)}, request_id="stalls") as sock:
        while not mark.exists():
            time.sleep(0.005)
        began = time.monotonic()
        gone(mark, within=5)
        assert time.monotonic() - began > 0.4
        record = server.await_record("http.access", request_id="stalls")
        assert record["code"] == "abandoned"
        with suppress(ConnectionResetError):
            while sock.recv(1 << 20):
                pass
    assert not [r for r in server.records("http.failed") if r["request_id"] == "stalls"]


@pytest.mark.both_servers
def test_a_drain_closes_sessions_with_1012(tmp_path: Path) -> None:
    flags = ("--drain-delay", "0", "--drain-timeout", "300ms")
    with live.live(tmp_path, "--plugins", "echo_session", *flags) as server:
        with session(server) as client:
            client.send(text({"data": "a"}))
            assert json.loads(client.recv(timeout=10)) == {"data": "a"}
            server.signal(signal.SIGTERM)
            frames, code, reason = rest(client)
        assert (code, reason) == (1012, "draining")
        assert frames[0]["error"]["code"] == "draining"
        assert server.wait() == 0


ALONE = """
from collections.abc import Iterator

from atomserve import Wrapper


class It(Wrapper):
    def session(self, inputs: Iterator[str]) -> Iterator[str]:
        yield from inputs
"""


@pytest.mark.anyio
async def test_a_frame_that_finds_no_shared_memory_says_try_later(tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(ALONE)
    scope = {"type": "websocket", "headers": [], "atomserve.client": Client()}
    told: list[Message] = []
    arrived, says = anyio.create_memory_object_stream[Message](9)
    heard, answered = anyio.create_memory_object_stream[Message](9)

    async def send(message: Message) -> None:
        told.append(message)
        await heard.send(message)

    async with instance(tmp_path / "it.py") as it, arrived, says, heard, answered:
        endpoint = SessionEndpoint(Entry(it.model, "/session"), origins=(), largest=2**20, stall=5)
        async with anyio.create_task_group() as tasks:
            await arrived.send({"type": "websocket.connect"})
            await arrived.send({"type": "websocket.receive", "text": text({"data": "a"})})
            tasks.start_soon(endpoint, scope, says.receive, send)
            assert (await answered.receive())["type"] == "websocket.accept"
            assert json.loads((await answered.receive())["text"]) == {"data": "a"}
            block = it.backend.pool.take(it.backend.pool.arena.bound)
            await arrived.send({"type": "websocket.receive", "text": text({"data": "x" * 99_999})})
        block.free()
    error, close = told[-2:]
    assert json.loads(error["text"])["error"]["code"] == "arena_full"
    assert (close["code"], close["reason"]) == (1013, "arena_full")
