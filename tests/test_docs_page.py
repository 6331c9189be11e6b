"""The documentation page shows every operation in a real browser that reaches nothing else."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypercorn.asyncio import serve
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from atomserve.fields import Image
from atomserve.server.connections import Config
from atomserve.signature import read_contract
from atomserve.surfaces import docs, openapi
from atomserve.wrapper import Wrapper

PREFIX = "/api"


class Ocr(Wrapper):
    """Read the text in a picture."""

    def predict(self, image: Image, language: str = "en") -> list[str]:
        return []


class Count(Wrapper):
    """Count to a number."""

    def predict(self, to: int) -> Iterator[int]:
        yield from range(to)


MODELS = {"ocr": read_contract(Ocr).signature, "count": read_contract(Count).signature}


def make_app() -> Starlette:
    document = openapi.routes(lambda: MODELS, prefix=PREFIX, title="Shop & co", version="1.2.3")
    return Starlette(routes=[*document, *docs.routes(prefix=PREFIX, title="Shop & co")])


@dataclass
class Site:
    """The page's application behind a real server, with the paths that were asked for."""

    paths: list[str] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.app = make_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self.app(scope, receive, send)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = Config()
        config.bind = [f"fd://{listener.fileno()}"]
        config.errorlog = None
        loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        running = threading.Event()

        async def run() -> None:
            stop = asyncio.Event()
            loops.append((asyncio.get_running_loop(), stop))
            running.set()
            await serve(site, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        running.wait()
        yield site
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        listener.detach()


def browse(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Open ``url`` in a browser that can resolve no name, and return the page it shows."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs the Debian package chromium")
    return subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={folder / 'net.json'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=8000",
            "--window-size=1200,1600",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=18,
        check=True,
    )


def asked_by(site: Site, folder: Path) -> set[str]:
    """Return the servers that the page, not the browser for itself, wanted to reach."""
    found = set()
    for line in (folder / "net.json").read_text(encoding="utf-8").splitlines():
        if '"initiator":"' in line and '"url":"' in line:
            request = json.loads(line.rstrip(","))["params"]
            if request["initiator"] == site.url:
                url = urlsplit(request["url"])
                found.add(f"{url.scheme}://{url.netloc}")
    return found - {"data://"}


@pytest.mark.debian("chromium")
def test_the_page_shows_every_operation_and_asks_nobody_else(site: Site, tmp_path: Path) -> None:
    shown = browse(f"{site.url}{PREFIX}/docs", tmp_path)
    document = openapi.document(MODELS, prefix=PREFIX, title="", version="")
    for path in document["paths"]:
        assert f'data-path="{path}"' in shown.stdout
    assert "Read the text in a picture." in shown.stdout
    assert "Shop &amp; co" in shown.stdout
    assert "Content Security Policy" not in shown.stderr
    assert "CONSOLE" not in shown.stderr, shown.stderr
    assert set(site.paths) == {
        f"{PREFIX}/docs",
        f"{PREFIX}/docs/swagger-ui.css",
        f"{PREFIX}/docs/swagger-ui.js",
        f"{PREFIX}/docs/start.js",
        f"{PREFIX}/openapi.json",
    }
    assert asked_by(site, tmp_path) == {site.url}


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app()) as client:
        yield client


def test_the_policy_lets_the_page_load_from_its_own_server_only(client: TestClient) -> None:
    policy = client.get(f"{PREFIX}/docs").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert not re.search(r"https?:|\*|unsafe-eval", policy)


def test_the_page_names_no_address_outside_its_own_folder(client: TestClient) -> None:
    page = client.get(f"{PREFIX}/docs").text
    assert "Shop &amp; co" in page
    named = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert named
    assert not [each for each in named if each.startswith(("http", "/"))]


def test_the_style_sheet_loads_nothing(client: TestClient) -> None:
    style = client.get(f"{PREFIX}/docs/swagger-ui.css").text
    assert "@import" not in style
    loads = re.findall(r"url\(\s*[\"']?([^)\"']{1,40})", style)
    assert loads
    assert not [each for each in loads if not each.startswith("data:")]


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("swagger-ui.js", "text/javascript"), ("swagger-ui.css", "text/css")],
)
def test_assets_are_kept_by_the_browser(client: TestClient, name: str, media_type: str) -> None:
    answer = client.get(f"{PREFIX}/docs/{name}")
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert len(answer.content) > 100_000
    assert client.head(f"{PREFIX}/docs/{name}").status_code == 200


def test_nothing_else_of_the_bundle_is_served(client: TestClient) -> None:
    for name in ("__init__.py", "scalar.js", "..%2f__init__.py", ""):
        assert client.get(f"{PREFIX}/docs/{name}", follow_redirects=False).status_code != 200


def test_serving_the_page_does_not_import_the_bundle() -> None:
    code = (
        "import sys; from atomserve.surfaces import docs; docs.routes(title='t');"
        "print('offapi' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
