"""The guard around real applications on a real Hypercorn, against clients that mean no good."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import h1raw
import h2raw
import pytest
from h1raw import chunk, get, post
from serving import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atomserve.errors import AtomError, BadRequest, Overloaded, TooLarge
from atomserve.guard.client import client_of
from atomserve.guard.guard import Guard
from atomserve.guard.problems import Answer, headers_of
from atomserve.guard.resets import reset
from atomserve.settings import Limits
from atomserve.telemetry.logs import AccessLog
from atomserve.telemetry.sink import Sink

pytestmark = pytest.mark.anyio

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


class Log:
    """A real access log, and the other end of its pipe."""

    def __init__(self) -> None:
        self._fd, fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._writer = fd
        self.sink = Sink(fd)
        self.access = AccessLog(self.sink, write_every=0.001)
        self._text = b""

    async def next(self) -> dict[str, Any]:
        while b"\n" not in self._text:
            await anyio.wait_readable(self._fd)
            self._text += os.read(self._fd, 65536)
        line, _, self._text = self._text.partition(b"\n")
        record: dict[str, Any] = json.loads(line)
        return record

    def close(self) -> None:
        self.sink.close()
        os.close(self._fd)
        os.close(self._writer)


def alive(handler: Handler) -> ASGIApp:
    """Make an application of an HTTP handler, that answers the lifespan protocol too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await handler(scope, receive, send)
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})

    return app


@asynccontextmanager
async def guarded(
    handler: Handler, *, trusted: tuple[str, ...] = (), **limits: Any
) -> AsyncIterator[tuple[Guard, int, Log]]:
    log = Log()
    guard = Guard(
        alive(handler),
        limits=Limits(**limits),
        access=log.access,
        trusted_proxies=trusted,
        reset=reset,
    )
    with anyio.fail_after(15):
        async with serving(guard) as port:
            yield guard, port, log
            with anyio.fail_after(3):
                await guard.idle()
                while any("_hear" in repr(task.coro) for task in anyio.get_running_tasks()):
                    await anyio.lowlevel.checkpoint()
            assert guard.bytes_held == 0
    log.close()


async def reply(send: Send, body: bytes = b"ok") -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message["body"]
        if not message["more_body"]:
            return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await reply(send, await read(receive))


async def ignore(scope: Scope, receive: Receive, send: Send) -> None:
    await reply(send)


async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the app must not be asked")


def open_sockets() -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except FileNotFoundError:
            continue
    return count


async def sockets_are(count: int, within: float) -> bool:
    with anyio.move_on_after(within):
        while open_sockets() > count:
            await anyio.sleep(0.02)
    return open_sockets() <= count


def code_of(body: bytes) -> str:
    code: str = json.loads(body)["code"]
    return code


# What passes.


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
async def test_bodies_arrive_whole_on_one_kept_connection(size: int) -> None:
    body = os.urandom(size)
    async with guarded(echo) as (_, port, log), h1raw.connect(port) as client:
        for _ in range(3):
            await client.send(post(body=body))
            assert (await client.answer()).body == body
            record = await log.next()
            assert (record["bytes_in"], record["bytes_out"]) == (size, size)
        await client.send(post(chunked=True) + chunk(b"one") + chunk(b"two") + chunk(b""))
        assert (await client.answer()).body == b"onetwo"


async def test_bodies_arrive_whole_on_http2() -> None:
    async with guarded(echo) as (_, port, log), h2raw.connect(port) as client:
        stream = await client.request(method="POST", end=False)
        await client.data(stream, b"a" * 10_000)
        await client.data(stream, b"b" * 10_000, end=True)
        answer = await client.answer(stream)
        assert answer.body == b"a" * 10_000 + b"b" * 10_000
        assert (await log.next())["http_version"] == "2"


async def test_a_starlette_application_serves_and_streams_behind_the_guard() -> None:
    async def whole(request: Request) -> Response:
        return Response(await request.body())

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for part in (b"a", b"b", b"c"):
                await anyio.sleep(0.015)
                yield part

        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/whole", whole, methods=["POST"]), Route("/stream", stream)])
    guard = Guard(app, limits=Limits())
    async with serving(guard) as port, h1raw.connect(port) as client:
        await client.send(post("/whole", body=b"hello"))
        assert (await client.answer()).body == b"hello"
        await client.send(get("/stream"))
        assert (await client.answer()).body == b"abc"
        await client.send(get("/none"))
        assert (await client.answer()).status == 404
        await guard.idle()


# What the head alone refuses.


UPGRADE = [
    "upgrade: websocket",
    "connection: upgrade",
    "sec-websocket-version: 13",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
]
REFUSED = {
    "length-and-coding": (post("/", "transfer-encoding: chunked", body=b"0\r\n\r\n"), 400),
    "two-lengths": (post("/", "content-length: 3", body=b""), 400),
    "signed-length": (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\n", 400),
    "two-hosts": (get("/", "host: other"), 400),
    "strange-coding": (get("/", "transfer-encoding: gzip"), {400, 501}),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 405),
    "trace": (b"TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
    "many-fields": (get("/", *(f"x-{n}: 1" for n in range(101))), 431),
    "large-field": (get("/", "x-big: " + "a" * 33_000), 431),
}


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_bad_head_is_refused_and_the_connection_closed(
    request_: bytes, status: int | set[int]
) -> None:
    async with guarded(unreachable) as (_, port, _log), h1raw.connect(port) as client:
        await client.send(request_)
        answer = await client.answer()
        assert answer.status in (status if isinstance(status, set) else {status})
        assert answer.header("connection") == "close"
        assert await client.closed()


async def test_a_refusal_is_problem_details() -> None:
    async with guarded(unreachable) as (_, port, log), h1raw.connect(port) as client:
        await client.send(b"TRACE / HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await client.answer()
        assert answer.header("content-type") == "application/problem+json"
        assert answer.header("allow") == "GET, HEAD, OPTIONS, POST"
        assert code_of(answer.body) == "method_not_allowed"
        assert (await log.next())["code"] == "method_not_allowed"


async def test_too_many_fields_on_http2_end_one_stream_only() -> None:
    async with guarded(ignore) as (_, port, _log), h2raw.connect(port) as client:
        many = await client.request("/", *((f"x-{n}", "1") for n in range(101)))
        assert (await client.answer(many)).status == 431
        assert (await client.answer(await client.request())).status == 200


async def test_a_websocket_with_too_many_fields_is_refused() -> None:
    async with guarded(unreachable) as (_, port, log), h1raw.connect(port) as client:
        await client.send(get("/", *UPGRADE, *(f"x-{n}: 1" for n in range(101))))
        answer = await client.answer()
        assert (answer.status, code_of(answer.body)) == (431, "headers_too_large")
        assert (await log.next())["status"] == 431


async def test_a_websocket_passes_and_is_recorded_once_at_its_end() -> None:
    async def accept(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        client_of(scope).model = "echo"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async with guarded(accept) as (_, port, log), h1raw.connect(port) as client:
        await client.send(get("/ws", *UPGRADE))
        assert (await client.head()).status == 101
        record = await log.next()
        assert (record["status"], record["model"], record["path"]) == (101, "echo", "/ws")


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_websocket_whose_app_fails_is_refused_or_closed(accepted: bool) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if accepted:
            await send({"type": "websocket.accept"})
        raise RuntimeError("broken")

    async with guarded(fail) as (guard, port, log), h1raw.connect(port) as client:
        await client.send(get("/", *UPGRADE))
        if accepted:
            assert (await client.head()).status == 101
            assert await client.exactly(4) == b"\x88\x02" + (1011).to_bytes(2, "big")
        else:
            answer = await client.answer()
            assert (answer.status, code_of(answer.body)) == (500, "internal")
        record = await log.next()
        assert (record["status"], record["code"]) == (101 if accepted else 500, "internal")
        assert guard.in_flight == 0


# Bodies that are too large.


async def test_p26_an_announced_body_over_the_limit_is_refused_before_a_byte_of_it() -> None:
    request = post("/", "expect: 100-continue").replace(b"length: 0", b"length: 100000000")
    async with guarded(unreachable, body=50_000_000) as (_, port, log):
        async with h1raw.connect(port) as client:
            await client.send(request)
            answer = await client.answer()
            assert (answer.status, code_of(answer.body)) == (413, "too_large")
        assert (await log.next())["bytes_in"] == 0


async def test_a_chunked_body_is_refused_when_it_passes_the_limit() -> None:
    async with guarded(echo, body=100_000) as (_, port, _log), h1raw.connect(port) as client:
        await client.send(post(chunked=True))
        for _ in range(11):
            await client.send(chunk(b"x" * 10_000))
        answer = await client.answer()
        assert (answer.status, answer.header("connection")) == (413, "close")


async def test_a_client_that_sends_first_and_reads_later_still_gets_the_413() -> None:
    async with guarded(echo, body=100_000) as (_, port, _log), h1raw.connect(port) as client:
        await client.send(post(body=b"x" * 150_000))
        assert (await client.answer()).status == 413
        assert await client.closed()


async def test_an_app_that_hides_the_refusal_cannot() -> None:
    async def swallow(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(TooLarge):
            await read(receive)
        await reply(send, b"all is well")

    async with guarded(swallow, body=10) as (_, port, _log), h1raw.connect(port) as client:
        await client.send(post(chunked=True) + chunk(b"x" * 11) + chunk(b""))
        assert (await client.answer()).status == 413


async def test_a_stalled_body_is_a_408_whichever_task_of_the_app_waits_for_it() -> None:
    async def share(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, receive)
        await reply(send)

    async with (
        guarded(share, min_rate_grace=0.1) as (_, port, _log),
        h1raw.connect(port) as client,
    ):
        await client.send(post(chunked=True) + chunk(b"x"))
        assert (await client.answer()).status == 408


async def test_a_body_in_too_many_pieces_is_refused() -> None:
    async with guarded(echo, chunks=50) as (_, port, _log), h1raw.connect(port) as client:
        await client.send(post(chunked=True) + chunk(b"x") * 60)
        assert (await client.answer()).status == 413


async def test_bodies_over_the_budget_are_told_to_come_back() -> None:
    entered, release = anyio.Event(), anyio.Event()

    async def hold(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await release.wait()
        await echo(scope, receive, send)

    async with (
        guarded(hold, bodies_in_flight=1000) as (guard, port, _log),
        h1raw.connect(port) as first,
        h1raw.connect(port) as second,
    ):
        await first.send(post(body=b"a" * 600))
        await entered.wait()
        assert guard.bytes_held == 600
        await second.send(post(body=b"b" * 600))
        refused = await second.answer()
        assert (refused.status, code_of(refused.body)) == (503, "busy")
        assert refused.header("retry-after") == "1"
        release.set()
        assert (await first.answer()).body == b"a" * 600
        await guard.idle()
        await first.send(post(chunked=True) + chunk(b"c" * 1001) + chunk(b""))
        assert (await first.answer()).status == 503


# Bodies that are slow, or that nobody reads.


async def test_p02_a_stalled_body_is_answered_408_and_closed() -> None:
    request = post().replace(b"length: 0", b"length: 1000")
    async with guarded(echo, min_rate_grace=0.3) as (_, port, log):
        async with h1raw.connect(port) as client:
            began = time.monotonic()
            await client.send(request + b"some")
            answer = await client.answer()
            assert (answer.status, code_of(answer.body)) == (408, "request_timeout")
            assert await client.closed()
            assert 0.3 <= time.monotonic() - began < 1.0
        record = await log.next()
        assert (record["status"], record["bytes_in"]) == (408, 4)


@pytest.mark.parametrize(("size", "status"), [(5, 408), (200, 200)])
async def test_a_body_ends_when_it_is_below_the_minimum_rate(size: int, status: int) -> None:
    async with (
        guarded(echo, min_rate=1000, min_rate_grace=0.2) as (_, port, _log),
        h1raw.connect(port) as client,
        anyio.create_task_group() as tasks,
    ):

        async def trickle() -> None:
            for _ in range(10):
                await client.send(chunk(b"x" * size))
                await anyio.sleep(0.05)
            await client.send(chunk(b""))

        await client.send(post(chunked=True))
        tasks.start_soon(trickle)
        assert (await client.answer()).status == status
        tasks.cancel_scope.cancel()


async def test_the_time_an_app_takes_between_reads_is_not_the_clients() -> None:
    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.4)
        await echo(scope, receive, send)

    async with (
        guarded(slowly, min_rate_grace=0.2) as (_, port, _log),
        h1raw.connect(port) as client,
    ):
        await client.send(post(chunked=True) + chunk(b"x"))
        await anyio.sleep(0.45)
        await client.send(chunk(b""))
        assert (await client.answer()).body == b"x"


async def put_unread(port: int, done: list[int]) -> None:
    async with h1raw.connect(port) as client:
        try:
            await client.send(post(chunked=True))
            for _ in range(40):
                await client.send(chunk(b"x" * 1000))
            await client.send(chunk(b""))
            done.append((await client.answer()).status)
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
            done.append(0)


async def leave_bodies_unread(app: ASGIApp) -> tuple[list[int], bool]:
    """Let 50 clients send what ``app`` does not read; return answers, and if sockets are left."""
    done: list[int] = []
    async with serving(app) as port:
        base = open_sockets()
        with anyio.move_on_after(3):
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(put_unread, port, done)
        return done, not await sockets_are(base, within=2)


async def test_p16_bodies_that_nobody_reads_leave_no_socket_behind() -> None:
    done, left = await leave_bodies_unread(Guard(alive(ignore), limits=Limits()))
    assert done == [200] * 50
    assert not left


async def test_p16_control_without_the_guard_sockets_are_left_behind() -> None:
    _, left = await leave_bodies_unread(alive(ignore))
    assert left


async def test_p16_an_unread_body_neither_freezes_nor_ends_the_other_streams() -> None:
    async with guarded(ignore) as (_, port, _log), h2raw.connect(port) as client:
        upload = await client.request(method="POST", end=False)
        for _ in range(20):
            await client.data(upload, b"x" * 100)
        await client.streams[upload].answered.wait()
        for _ in range(19):
            await client.data(upload, b"x" * 100)
            began = time.monotonic()
            assert (await client.answer(await client.request())).status == 200
            assert time.monotonic() - began < 0.1
        await client.data(upload, b"", end=True)
        assert (await client.answer(upload)).body == b"ok"
        assert not client.lost.is_set()


async def test_a_stream_goes_on_while_its_unread_body_is_discarded() -> None:
    arrived = anyio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await arrived.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async with guarded(stream) as (_, port, _log), h2raw.connect(port) as client:
        upload = await client.request(method="POST", end=False)
        await client.streams[upload].answered.wait()
        await anyio.sleep(0.03)
        for _ in range(40):
            await client.data(upload, b"x" * 100)
        await client.data(upload, b"", end=True)
        other = await client.request()
        await client.streams[other].answered.wait()
        arrived.set()
        assert (await client.answer(upload)).body == b"firstlast"
        assert (await client.answer(other)).body == b"firstlast"


# Clients that leave.


async def test_a_client_that_leaves_is_noticed_once() -> None:
    gone: list[str] = []
    noticed = anyio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        client = client_of(scope)
        client.on_gone(lambda: gone.append("first"))
        client.on_gone(noticed.set)
        await noticed.wait()
        client.on_gone(lambda: gone.append("late"))
        assert client.gone

    async with guarded(wait) as (guard, port, log):
        async with h1raw.connect(port) as client:
            await client.send(post(body=b"hello"))
            await anyio.sleep(0.05)
        await guard.idle()
        assert gone == ["first", "late"]
        record = await log.next()
        assert (record["status"], record["code"]) == (499, "abandoned")


async def test_a_reset_stream_is_noticed_and_its_connection_goes_on() -> None:
    noticed = anyio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wait":
            client_of(scope).on_gone(noticed.set)
            await noticed.wait()
        else:
            await reply(send)

    async with guarded(wait) as (_, port, _log), h2raw.connect(port) as client:
        stream = await client.request("/wait")
        await anyio.sleep(0.04)
        client.connection.reset_stream(stream)
        await client.flush()
        await noticed.wait()
        assert (await client.answer(await client.request())).status == 200


async def test_nobody_is_told_of_a_departure_after_the_answer() -> None:
    gone: list[str] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        client_of(scope).on_gone(lambda: gone.append("gone"))
        await anyio.sleep(0.03)
        await reply(send)

    async with guarded(slow) as (guard, port, _log):
        async with h1raw.connect(port) as client:
            await client.send(get())
            assert (await client.answer()).status == 200
        await guard.idle()
    assert gone == []


@pytest.mark.parametrize("late", [False, True])
async def test_an_app_that_listens_itself_hears_the_disconnect(late: bool) -> None:
    heard: list[Message] = []

    async def listen(scope: Scope, receive: Receive, send: Send) -> None:
        if late:
            await anyio.sleep(0.03)
        await read(receive)
        heard.append(await receive())
        heard.append(await receive())

    async with guarded(listen) as (guard, port, _log):
        async with h1raw.connect(port) as client:
            await client.send(post(body=b"x"))
            await anyio.sleep(0.05)
        await guard.idle()
    assert [message["type"] for message in heard] == ["http.disconnect"] * 2


async def test_an_app_may_give_up_listening_and_is_still_told() -> None:
    noticed = anyio.Event()

    async def listen(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        with anyio.move_on_after(0.04):
            await receive()
        request = Request(scope, receive)
        assert not await request.is_disconnected()
        client_of(scope).on_gone(noticed.set)
        await noticed.wait()
        assert await request.is_disconnected()

    async with guarded(listen) as (guard, port, log):
        async with h1raw.connect(port) as client:
            await client.send(post(body=b"x"))
            await anyio.sleep(0.1)
        await guard.idle()
        assert (await log.next())["code"] == "abandoned"


async def test_one_callback_that_fails_does_not_keep_the_others_from_hearing() -> None:
    noticed = anyio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        client_of(scope).on_gone([].pop)
        client_of(scope).on_gone(noticed.set)
        await noticed.wait()

    async with guarded(wait) as (guard, port, _log):
        async with h1raw.connect(port) as client:
            await client.send(get())
            await anyio.sleep(0.04)
        await guard.idle()


@pytest.mark.parametrize("abort", [False, True])
async def test_h15_a_tight_generator_ends_when_its_client_has_left(abort: bool) -> None:
    sent = 0

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100_000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent += 1

    async with guarded(flood) as (guard, port, log):
        async with h1raw.connect(port) as client:
            await client.send(get())
            await client.head()
            await client.chunk()
            if abort:
                await client.abort()
        with anyio.fail_after(1):
            await guard.idle()
        assert sent < 1000
        assert (await log.next())["code"] == "abandoned"


@pytest.mark.parametrize("version", [1, 2])
async def test_p03_a_client_that_does_not_read_is_given_up(version: int) -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"x" * 10_000_000)

    async with guarded(flood, send_stall=0.2) as (guard, port, log):
        base = open_sockets()
        began = time.monotonic()
        async with await anyio.connect_tcp("127.0.0.1", port) as client:
            if version == 1:
                await client.send(get())
            else:
                http2 = h2raw.H2(client)
                http2.connection.initiate_connection()
                await http2.request()
            assert (await log.next())["code"] == "abandoned"
            assert 0.2 <= time.monotonic() - began < 2
            await guard.idle()
            if version == 1:
                assert await sockets_are(base + 1, within=1)


# What goes wrong in the app.


async def test_an_exception_is_a_500_with_an_id_and_no_detail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("/secret/path")

    async with guarded(fail) as (_, port, log), h1raw.connect(port) as client:
        for _ in range(2):
            await client.send(get())
            answer = await client.answer()
            assert (answer.status, code_of(answer.body)) == (500, "internal")
            assert b"secret" not in answer.body
            assert json.loads(answer.body)["instance"].startswith("urn:atomserve:error:")
            assert (await log.next())["code"] == "internal"


async def test_an_app_that_returns_without_an_answer_is_a_500() -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...

    async with guarded(nothing) as (_, port, _log), h1raw.connect(port) as client:
        await client.send(get())
        assert (await client.answer()).status == 500


@pytest.mark.parametrize("grouped", [False, True])
async def test_an_error_of_ours_is_answered_as_what_it_is(grouped: bool) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        if grouped:
            raise ExceptionGroup("", [BadRequest("no such thing")])
        raise Overloaded("the queue of echo is full", retry_after=1.2)

    async with guarded(refuse) as (_, port, _log), h1raw.connect(port) as client:
        await client.send(post(body=b"x"))
        answer = await client.answer()
        assert answer.status == (400 if grouped else 429)
        assert answer.header("retry-after") == (None if grouped else "2")
        assert answer.header("connection") is None


@pytest.mark.parametrize("websocket", [False, True])
async def test_a_surface_says_how_its_errors_are_dressed(websocket: bool) -> None:
    def dress(error: AtomError) -> Answer:
        body = error.code.encode()
        length = (b"content-length", b"%d" % len(body))
        return 418, [length, *headers_of(error)], body

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        client_of(scope).refusal = dress
        raise Overloaded("full", retry_after=1.2, headers=[(b"x-why", b"because")])

    async with guarded(refuse) as (_, port, log), h1raw.connect(port) as client:
        await client.send(get("/", *UPGRADE) if websocket else get())
        answer = await client.answer()
        assert (answer.status, answer.body) == (418, b"overloaded")
        assert (answer.header("retry-after"), answer.header("x-why")) == ("2", "because")
        record = await log.next()
        assert (record["status"], record["code"]) == (418, "overloaded")


async def break_off(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/fine":
        return await reply(send)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("broken")


async def test_an_answer_that_breaks_off_never_looks_complete() -> None:
    async with guarded(break_off) as (_, port, log), h1raw.connect(port) as client:
        await client.send(get())
        with pytest.raises((anyio.IncompleteRead, anyio.BrokenResourceError)):
            await client.answer()
        record = await log.next()
        assert (record["status"], record["code"]) == (200, "internal")


async def test_an_answer_that_breaks_off_on_http2_resets_its_stream_alone() -> None:
    async with guarded(break_off) as (_, port, _log), h2raw.connect(port) as client:
        broken = await client.answer(await client.request())
        assert broken.reset == 2
        assert (await client.answer(await client.request("/fine"))).body == b"ok"


# Names, addresses and draining.


async def test_a_sane_request_id_is_kept_and_any_other_replaced() -> None:
    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, client_of(scope).request_id.encode())

    async with guarded(tell) as (_, port, log), h1raw.connect(port) as client:
        seen = set()
        for sent in ("abc-123", "tab\there", "é", "x" * 129, ""):
            await client.send(get("/", f"x-request-id: {sent}"))
            answer = await client.answer()
            given = answer.header("x-request-id")
            assert given == answer.body.decode() == (await log.next())["request_id"]
            assert given is not None and given.isascii() and 0 < len(given) <= 128
            assert (given == sent) == (sent == "abc-123")
            seen.add(given)
        assert len(seen) == 5


async def test_s17_a_path_cannot_forge_a_line_of_the_access_log() -> None:
    async with guarded(ignore) as (_, port, log), h1raw.connect(port) as client:
        await client.send(get("/%0d%0aFAKE%1b[31m" + "a" * 9000))
        await client.answer()
        record = await log.next()
        assert record["path"].startswith("/%0d%0aFAKE%1b[31m")
        assert len(record["path"]) <= 2051


async def test_what_a_surface_tells_is_in_the_record() -> None:
    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        client = client_of(scope)
        client.model, client.route, client.code = "ocr", "/v1/models/{name}/predict", "invalid"
        await reply(send)

    async with guarded(tell) as (_, port, log), h1raw.connect(port) as client:
        await client.send(get("/x?secret=1"))
        await client.answer()
        record = await log.next()
        assert record["path"] == "/x"
        assert (record["model"], record["code"]) == ("ocr", "invalid")
        assert record["route"] == "/v1/models/{name}/predict"
        assert (record["client"], record["method"]) == ("127.0.0.1", "GET")


@pytest.mark.parametrize(
    ("trusted", "client", "scheme"),
    [((), "127.0.0.1", "http"), (("127.0.0.0/8", "10.0.0.1"), "203.0.113.7", "https")],
)
async def test_only_trusted_proxies_speak_for_others(
    trusted: tuple[str, ...], client: str, scheme: str
) -> None:
    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, f"{scope['client'][0]} {scope['scheme']}".encode())

    async with guarded(tell, trusted=trusted) as (_, port, _log), h1raw.connect(port) as sender:
        forwarded = "x-forwarded-for: 198.51.100.1, 203.0.113.7:4711, 10.0.0.1"
        await sender.send(get("/", forwarded, "x-forwarded-proto: https"))
        assert (await sender.answer()).body.decode() == f"{client} {scheme}"


async def test_h5_while_draining_http1_answers_ask_for_the_connections_end() -> None:
    async with (
        guarded(ignore) as (guard, port, _log),
        h1raw.connect(port) as client,
        h2raw.connect(port) as other,
    ):
        await client.send(get())
        assert (await client.answer()).header("connection") is None
        guard.draining = True
        await client.send(get())
        assert (await client.answer()).header("connection") == "close"
        assert await client.closed()
        answer = await other.answer(await other.request())
        assert "connection" not in answer.headers


async def test_idle_waits_for_the_last_request() -> None:
    entered, release = anyio.Event(), anyio.Event()

    async def hold(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await release.wait()
        await reply(send)

    async with guarded(hold) as (guard, port, _log), h1raw.connect(port) as client:
        await client.send(get())
        await entered.wait()
        assert guard.in_flight == 1
        with anyio.move_on_after(0.05) as waited:
            await guard.idle()
        assert waited.cancelled_caught
        release.set()
        await guard.idle()
        assert guard.in_flight == 0
