"""The probes tell the truth quickly, in text and in JSON, and ask nothing of a model."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from atomserve.surfaces import health


@dataclass
class Server:
    """A server's state, set by hand."""

    started: bool = True
    ready: bool = True
    draining: bool = False
    registration: tuple[str, str] | None = None
    models: dict[str, tuple[str, str]] = field(default_factory=lambda: {"ocr": ("ready", "")})

    def states(self) -> dict[str, tuple[str, str]]:
        return self.models

    def apps(self) -> dict[str, tuple[str, str]]:
        return {}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=health.routes(server))) as client:
        yield client


PROBES = ["/livez", "/readyz", "/readyz/ocr", "/startupz", "/healthz"]


@pytest.mark.parametrize("path", PROBES)
def test_a_ready_server_says_ok(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PROBES)
def test_head_is_answered_like_get(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == 200


def test_a_loading_server_lives_and_is_not_ready(client: TestClient, server: Server) -> None:
    server.started = server.ready = False
    server.models = {"ocr": ("loading", ""), "echo": ("ready", "")}
    statuses = {path: client.get(path).status_code for path in (*PROBES, "/readyz/echo")}
    assert statuses == {
        "/livez": 200,
        "/readyz": 503,
        "/readyz/ocr": 503,
        "/readyz/echo": 200,
        "/startupz": 503,
        "/healthz": 503,
    }
    assert client.get("/readyz").text == "not ok: ocr is loading\n"


def test_a_draining_server_lives_and_is_not_ready(client: TestClient, server: Server) -> None:
    server.draining = True
    statuses = {path: client.get(path).status_code for path in PROBES}
    assert statuses == {
        "/livez": 200,
        "/readyz": 503,
        "/readyz/ocr": 503,
        "/startupz": 200,
        "/healthz": 503,
    }
    assert client.get("/readyz").text == "not ok: draining\n"


def test_verbose_lists_each_model(client: TestClient, server: Server) -> None:
    server.ready = False
    server.models = {"ocr": ("ready", ""), "tts": ("failed", "load: no such file")}
    answer = client.get("/readyz?verbose")
    assert answer.status_code == 503
    assert answer.text == (
        "[+] model ocr: ready\n"
        "[-] model tts: failed (load: no such file)\n"
        "readyz check failed: tts is failed\n"
    )


def test_any_readiness_passes_with_a_failed_model(client: TestClient, server: Server) -> None:
    server.models = {"ocr": ("ready", ""), "tts": ("failed", "")}
    answer = client.get("/readyz?verbose")
    assert answer.status_code == 200
    assert answer.text.endswith("[-] model tts: failed\nreadyz check passed\n")


@pytest.mark.parametrize("accept", ["application/json", "text/html, Application/JSON;q=0.9"])
def test_programs_get_json(client: TestClient, server: Server, accept: str) -> None:
    server.draining = True
    answer = client.get("/readyz", headers={"Accept": accept})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "ok": False,
        "detail": "draining",
        "models": {"ocr": {"state": "ready", "detail": ""}},
    }


def test_a_check_of_an_unknown_model_is_a_problem(client: TestClient) -> None:
    answer = client.get("/readyz/nobody")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "model_not_found"
