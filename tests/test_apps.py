"""An app of somebody else's behind the guard: its lifespan, its requests and their end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from serving import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from atomserve.app import App
from atomserve.hosting.foreign import Foreign
from atomserve.hosting.hosted import HostedApp
from atomserve.settings import Limits, Settings

pytestmark = pytest.mark.anyio

Get = Callable[[Request], Awaitable[Response]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def hosting(app: ASGIApp, **settings: Any) -> App:
    return App(Settings(**settings), expected=0, foreign=Foreign("site", app))


def site(**paths: Get) -> Starlette:
    routes = [Route(f"/{path}", get, methods=["GET", "POST"]) for path, get in paths.items()]
    return Starlette(routes=routes)


@asynccontextmanager
async def served(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(app) as port:
        client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10
        )
        async with client:
            await settled(app)
            yield client


async def settled(app: App) -> None:
    """Return when what is hosted has started, or failed to."""
    changed = asyncio.Event()
    app.watch(lambda *_: changed.set())
    while any(guest.state == "loading" for guest in app.engine.guests):
        await changed.wait()
        changed.clear()


async def say_path(request: Request) -> Response:
    return PlainTextResponse(request.url.path)


async def test_what_is_not_ours_is_the_apps() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        assert scope["root_path"] == ""
        assert not {"app", "router", "endpoint", "path_params"} & scope.keys()
        await PlainTextResponse(f"{scope['method']} {scope['path']}")(scope, receive, send)

    async with served(hosting(app, prefix="/pre")) as client:
        for path in ("/", "/v1/models", "/docs", "/openapi.json", "/livezz", "/pre/v1/other"):
            assert (await client.delete(path)).text == f"DELETE {path}"
        for path in ("/livez", "/readyz", "/readyz/site", "/startupz", "/healthz"):
            assert (await client.get(path)).text == "ok\n"
        assert (await client.post("/livez")).status_code == 405
        assert "atomserve_info" in (await client.get("/metrics")).text
        assert (await client.get("/readyz?verbose")).text.startswith("[+] app site: ready\n")
        status = (await client.get("/pre/v1/status")).json()
        assert status["apps"] == {"site": {"state": "ready", "detail": "", "ready": 1}}


async def test_its_lifespan_surrounds_its_requests_and_gives_them_its_state() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        told.append("start")
        yield {"model": "loaded"}
        told.append("stop")

    async def get(request: Request) -> Response:
        told.append("request")
        return PlainTextResponse(request.state.model)

    app = Starlette(routes=[Route("/", get)], lifespan=lifespan)
    async with served(hosting(app)) as client:
        assert (await client.get("/")).text == "loaded"
    assert told == ["start", "request", "stop"]


async def test_until_it_has_started_it_is_not_ready_and_the_probes_answer() -> None:
    begin = asyncio.Event()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await begin.wait()
        yield

    app = hosting(Starlette(routes=[Route("/", say_path)], lifespan=lifespan))
    async with serving(app) as port, httpx2.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}"
        early = await client.get(f"{url}/")
        assert (early.status_code, early.json()["code"]) == (503, "not_ready")
        assert early.headers["retry-after"] == "1"
        statuses = {path: (await client.get(url + path)).status_code for path in PROBES}
        assert statuses == {"/livez": 200, "/readyz": 503, "/startupz": 503}
        assert not app.ready
        begin.set()
        await settled(app)
        assert app.ready
        assert (await client.get(f"{url}/")).text == "/"


PROBES = ("/livez", "/readyz", "/startupz")


async def fail_to_start(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no model there"})


async def leave(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise SystemExit("no licence")


async def stop_early(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise RuntimeError("lost it")


async def end_early(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


@asynccontextmanager
async def raising(_: Starlette) -> AsyncIterator[None]:
    raise FileNotFoundError("weights.bin")
    yield


@pytest.mark.parametrize(
    ("app", "detail"),
    [
        (Starlette(lifespan=raising), "its start failed: FileNotFoundError: weights.bin (test_"),
        (fail_to_start, "its start failed: LifespanFailed: no model there"),
        (leave, "its start failed: SystemExit: no licence (test_"),
        (stop_early, "its lifespan ended: RuntimeError: lost it (test_"),
        (end_early, "its lifespan ended: LifespanFailed: the application ended by itself"),
    ],
)
async def test_a_start_that_fails_is_told_in_one_line(app: ASGIApp, detail: str) -> None:
    hosted = HostedApp("site", app, patience=5)
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    hosted.watch(lambda _, state, why: failed.set_result(why) if state == "failed" else None)
    async with hosted.running():
        told = await failed
    assert told.startswith(detail)
    assert "\n" not in told
    assert hosted.state == "failed"


async def test_a_failed_app_is_refused_and_the_probes_say_why() -> None:
    async with served(hosting(Starlette(lifespan=raising))) as client:
        refused = await client.get("/anything")
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert "retry-after" not in refused.headers
        ready = await client.get("/readyz?verbose")
        assert ready.status_code == 503
        assert "[-] app site: failed (its start failed: FileNotFoundError" in ready.text
        found = (await client.get("/readyz", headers={"accept": "application/json"})).json()
        assert found["apps"]["site"]["state"] == "failed"
        assert (await client.get("/livez")).status_code == 200


async def http_alone(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await PlainTextResponse("fine")(scope, receive, send)


async def deaf_to_the_rest(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await PlainTextResponse("fine")(scope, receive, send)


@pytest.mark.parametrize("app", [http_alone, deaf_to_the_rest])
async def test_an_app_without_a_lifespan_is_served(app: ASGIApp) -> None:
    async with served(hosting(app)) as client:
        assert (await client.get("/")).text == "fine"


async def test_its_stop_is_bounded() -> None:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await anyio.sleep_forever()

    hosted = HostedApp("site", Starlette(lifespan=lifespan), patience=0.05)
    ready = asyncio.Event()
    hosted.watch(lambda _, state, __: ready.set() if state == "ready" else None)
    async with hosted.running():
        await ready.wait()
    assert hosted.state == "ready"


async def test_a_stop_that_fails_ends_it_all_the_same() -> None:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        raise RuntimeError("not now")

    async with served(hosting(Starlette(lifespan=lifespan), unload_timeout=600.0)) as client:
        assert (await client.get("/")).status_code == 404


async def test_an_answer_arrives_while_it_is_being_made() -> None:
    go_on = asyncio.Event()

    async def stream(_: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            yield "first"
            await go_on.wait()
            yield "last"

        return StreamingResponse(pieces())

    async with (
        served(hosting(site(stream=stream))) as client,
        client.stream("GET", "/stream") as answer,
    ):
        pieces = answer.aiter_text()
        assert await anext(pieces) == "first"
        go_on.set()
        assert await anext(pieces) == "last"


async def test_a_stream_ends_when_its_client_leaves() -> None:
    left = asyncio.Event()

    async def stream(_: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            try:
                while True:
                    yield "more"
                    await asyncio.sleep(0.01)
            finally:
                left.set()

        return StreamingResponse(pieces())

    app = hosting(site(stream=stream))
    async with served(app) as client:
        async with client.stream("GET", "/stream") as answer:
            await anext(answer.aiter_raw())
        await asyncio.wait_for(left.wait(), 10)
        await app.idle()


async def test_whatever_it_raises_for_a_client_that_left_is_no_failure() -> None:
    asked = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        asked.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ValueError("nobody is there")

    with capture_logs() as logged:
        await _leave_early(hosting(wait), asked)
    assert not [record for record in logged if record["event"] == "http.failed"]


async def _leave_early(app: App, asked: asyncio.Event) -> None:
    async with serving(app) as port:
        await settled(app)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asked.wait()
        writer.close()
        await app.idle()


async def test_a_body_over_the_limit_is_refused_whatever_the_app_makes_of_it() -> None:
    async def read(request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except Exception:  # noqa: BLE001 - as careless frameworks do
            return PlainTextResponse("mine", 400)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(1000)

    async with served(hosting(site(read=read), limits=Limits(body=2000))) as client:
        assert (await client.post("/read", content=bytes(2000))).text == "2000"
        for content in (bytes(2001), pieces()):
            refused = await client.post("/read", content=content)
            assert (refused.status_code, refused.json()["code"]) == (413, "too_large")


async def test_a_failure_is_a_problem_and_its_cause_stays_here() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        raise RuntimeError("a secret")

    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        raise SystemExit(3)

    for app in (fail, leave):
        async with served(hosting(app)) as client:
            answer = await client.get("/")
            assert (answer.status_code, answer.json()["code"]) == (500, "internal")
            assert "secret" not in answer.text


async def test_its_requests_are_counted_under_one_route() -> None:
    async with served(hosting(site(one=say_path, two=say_path))) as client:
        await client.get("/one")
        await client.get("/two?secret=1")
        text = (await client.get("/metrics")).text
    assert 'atomserve_requests_total{model="",route="app",status="200",code=""} 2' in text


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    while True:  # raises WebSocketDisconnect, as most such code does
        await socket.send_text(await socket.receive_text())


async def test_websockets_reach_it_and_their_end_is_no_failure() -> None:
    app = hosting(Starlette(routes=[WebSocketRoute("/echo", echo)]))
    with capture_logs() as logged:
        async with serving(app) as port:
            await _say_hello(app, port)
    assert not [record for record in logged if record["event"] == "http.failed"]


async def _say_hello(app: App, port: int) -> None:
    await settled(app)
    async with connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        assert app.in_flight == 1
    await app.idle()


async def test_at_a_stop_websockets_are_closed_for_a_restart() -> None:
    app = hosting(Starlette(routes=[WebSocketRoute("/echo", echo)]))
    async with serving(app) as port:
        await settled(app)
        async with connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as client:
            await client.send("hello")
            await client.recv()
            app.begin_drain()
            app.abort()
            with pytest.raises(ConnectionClosedError) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        await app.idle()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What keeps a thread of the app's busy, until the test has ended."""
    event = threading.Event()
    yield event
    event.set()


async def test_what_is_in_flight_at_the_end_is_answered_whether_or_not_it_can_be_ended(
    release: threading.Event,
) -> None:
    begun: list[str] = []
    all_begun = asyncio.Event()

    def begin(path: str) -> None:
        begun.append(path)
        if len(begun) == 2:
            all_begun.set()

    async def waiting(_: Request) -> Response:
        begin("waiting")
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    async def blocking(_: Request) -> Response:  # as `def` endpoints are run
        begin("blocking")
        await anyio.to_thread.run_sync(release.wait)
        return PlainTextResponse("too late")

    app = hosting(site(waiting=waiting, blocking=blocking))
    async with served(app) as client, anyio.create_task_group() as tasks:

        async def ask(path: str) -> None:
            answer = await client.get(path)
            answers[path] = (answer.status_code, answer.json()["code"])

        answers: dict[str, tuple[int, str]] = {}
        async with anyio.create_task_group() as asking:
            asking.start_soon(ask, "/waiting")
            asking.start_soon(ask, "/blocking")
            await all_begun.wait()
            app.begin_drain()
            assert (await client.get("/readyz")).status_code == 503
            app.abort()
        assert answers == {"/waiting": (503, "draining"), "/blocking": (503, "draining")}
        release.set()
        await app.idle()
        late = await client.get("/waiting")
        assert (late.status_code, late.json()["code"]) == (503, "draining")
        tasks.cancel_scope.cancel()
