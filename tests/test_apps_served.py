"""An app beside a model, in two API processes, as `atomserve run` serves them."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import live
import pytest
from websockets.sync.client import connect

from atomserve.backends.prepared import prepare
from atomserve.errors import PluginError
from atomserve.hosting.foreign import load_app
from atomserve.plugins import resolve
from atomserve.settings import ModelSettings, Settings

SITE = """
import asyncio
import os
import time
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute


def say(line):
    print(f"{line}\\n", end="", flush=True)  # at once, for two processes write to one pipe


@asynccontextmanager
async def lifespan(app):
    say("site starts")
    yield
    say("site stops")


async def who(request):
    return JSONResponse({"pid": os.getpid(), "path": request.url.path})


def slow(request):
    say("site works")
    time.sleep(0.5)
    return JSONResponse("done")


async def forever(request):
    say("site waits")
    await asyncio.sleep(3600)


async def count(request):
    async def numbers():
        for number in range(3):
            yield f"{number}\\n"

    return StreamingResponse(numbers())


async def echo(socket):
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


app = Starlette(
    routes=[
        Route("/slow", slow),
        Route("/forever", forever),
        Route("/count", count),
        WebSocketRoute("/echo", echo),
        Route("/{path:path}", who),
    ],
    lifespan=lifespan,
)
"""

MODEL = '''
from atomserve import Text, Wrapper


class Shout(Wrapper):
    """Say it louder."""

    def predict(self, text: Text) -> Text:
        return text.upper()
'''


def folder_of(path: Path) -> Path:
    (path / "site1.py").write_text(SITE)
    (path / "model.py").write_text(MODEL)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = folder_of(tmp_path_factory.mktemp("apps"))
    plugins = ("--plugins", "site=asgi:site1:app,model.py", "--api-processes", "2")
    with live.live(folder, *plugins) as running:
        yield running


def pids_of(server: live.Live) -> set[int]:
    with server.client() as client:
        found = client.get("/v1/status").json()
    assert found["apps"]["site"]["ready"] == 2
    return {api["pid"] for api in found["api_processes"]}


def test_the_start_says_where_both_are(server: live.Live) -> None:
    server.await_line(lambda line: line.split() == ["site", f"{server.url}/"])
    server.await_line(lambda line: line.endswith("/v1/models/shout/predict"))
    assert server.printed.count("site starts") == 2, server.printed


def test_a_model_is_served_beside_the_app(server: live.Live) -> None:
    with server.client() as client:
        answer = client.post("/v1/models/shout/predict", json={"text": "hey"})
        assert answer.json() == "HEY"
        assert client.get("/v1/models").json()["models"][0]["name"] == "shout"
        assert client.get("/openapi.json").json()["info"]["title"] == "atomserve"
        assert client.get("/v1/other").json()["path"] == "/v1/other"
        assert client.get("/").json()["pid"] in pids_of(server)
        assert client.get("/count").text == "0\n1\n2\n"


def test_a_websocket_of_the_app_is_served(server: live.Live) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/echo", proxy=None) as client:
        client.send("hello")
        assert client.recv(10) == "hello"


def test_a_request_of_the_app_leaves_a_record(server: live.Live) -> None:
    with server.client() as client:
        client.get("/recorded?key=secret")
    record = server.await_record("http.access", path="/recorded")
    assert (record["route"], record["status"]) == ("app", 200)


def test_the_command_line_shows_the_app(server: live.Live) -> None:
    shown = subprocess.run(
        live.command("status", server.url),
        env=live.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "site: ready, in 2 of 2 API processes" in shown.stdout


def test_a_killed_process_comes_back_with_the_app(server: live.Live) -> None:
    before = pids_of(server)
    lost = min(before)
    os.kill(lost, signal.SIGKILL)
    server.await_line(lambda line: line.startswith("API process ") and "ended" in line)
    server.await_line(lambda line: line == "Ready again.")
    after = pids_of(server)
    assert lost not in after
    assert len(after) == 2
    assert after & before


def test_a_stop_lets_the_app_finish_what_it_can_and_ends_its_lifespan(tmp_path: Path) -> None:
    arguments = ("--plugins", "asgi:site1:app", "--drain-delay", "0", "--drain-timeout", "3s")
    with (
        live.live(folder_of(tmp_path), *arguments) as server,
        server.client() as client,
        ThreadPoolExecutor() as pool,
    ):
        late = pool.submit(client.get, "/forever")
        server.await_line(lambda line: line == "site waits")
        timely = pool.submit(client.get, "/slow")
        server.await_line(lambda line: line == "site works")
        server.signal(signal.SIGTERM)
        assert timely.result(10).json() == "done"
        refused = late.result(10)
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert server.wait() == 0
        server.await_line(lambda line: line == "site stops")


def test_an_app_that_does_not_start_leaves_the_server_up_and_not_ready(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from starlette.applications import Starlette\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    raise FileNotFoundError('weights.bin')\n"
        "    yield\n"
        "app = Starlette(lifespan=lifespan)\n"
    )
    with live.running(tmp_path, "--plugins", "asgi:broken:app") as server:
        told = server.await_line(lambda line: line.startswith("  app: failed"))
        assert told == (
            "  app: failed: its start failed: FileNotFoundError: weights.bin (broken.py, line 5)"
        )
        with server.client() as client:
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").text == "not ok: app is failed\n"
        server.signal(signal.SIGINT)
        assert server.wait() == 0


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        live.command(*arguments),
        cwd=folder,
        env=live.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def test_an_app_that_cannot_be_imported_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("import nothing_here")
    code, told = run(tmp_path, "run", "--port", "0", "--plugins", "asgi:wrong:app")
    lines = [line for line in told.splitlines() if line.startswith("atomserve: error: ")]
    assert (code, len(lines)) == (2, 1), told
    assert "asgi:wrong:app: cannot be imported: ModuleNotFoundError: No module" in lines[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("raise SystemExit(0)", "cannot be imported: SystemExit: 0 (wrong.py, line 1)"),
        ("apps = 1", "wrong.py has no app; did you mean apps?"),
        ("app = 1", "app is no ASGI application but int"),
        ("class app: pass", "app is no ASGI application but the class app"),
    ],
)
def test_what_is_no_app_is_told_so(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(text)
    settings = Settings(plugins=(f"asgi:{tmp_path}/wrong.py",))
    (source,) = resolve(settings, [])
    with pytest.raises(PluginError) as failed:
        load_app(source, settings)
    assert expected in str(failed.value)


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ("asgi:a:app,asgi:b:app", "asgi:a:app and asgi:b:app are two apps, and an instance hosts"),
        ("one=asgi:a:app,two=asgi:b:app", "are two apps, and an instance hosts one"),
        ("asgi:a:app,app=b:B", 'two models are called "app"'),
        ("asgi:./nowhere.py", "there is no file"),
        ("asgi:nothing", "expected asgi:package.module:app"),
        ("linker:package.module", "expected linker:path/to/server.py"),
    ],
)
def test_what_cannot_be_an_app_is_told_before_anything_starts(plugins: str, expected: str) -> None:
    with pytest.raises(PluginError) as refused:
        resolve(Settings(plugins=(plugins,)), [])
    assert expected in str(refused.value)


def test_the_same_app_twice_is_one() -> None:
    (source,) = resolve(Settings(plugins=("asgi:a:app", "app=asgi:a:app")), [])
    assert (source.name, source.kind, source.target) == ("app", "app", "asgi:a:app")


@pytest.mark.parametrize("settings", [ModelSettings(plugin="asgi:a:app"), ModelSettings(slots=2)])
def test_an_app_takes_no_settings_of_a_model(settings: ModelSettings) -> None:
    plugins = () if settings.plugin else ("site=asgi:a:app",)
    with pytest.raises(PluginError, match=r"\[models.site\]: asgi:a:app is an app, which has none"):
        resolve(Settings(plugins=plugins, models={"site": settings}), [])


def test_check_starts_and_stops_an_app(tmp_path: Path) -> None:
    done = subprocess.run(
        live.command("check", "asgi:site1:app", "--json"),
        cwd=folder_of(tmp_path),
        env=live.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert (report["ok"], report["name"]) == (True, "app")
    assert [step["what"] for step in report["steps"]] == ["start", "stop"]
    assert "site starts" in done.stderr


def test_an_app_is_no_model() -> None:
    (source,) = resolve(Settings(plugins=("asgi:a:app",)), [])
    with pytest.raises(PluginError, match="asgi:a:app: is an app, which is hosted, and no model"):
        prepare(source, Settings())
