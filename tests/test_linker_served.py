"""A service of linker_atom behind the guard: the operator's word reaches it, and bounds it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx2
import live
import pytest

PAGE = "https://page.example"
SECRET = "a-secret-of-the-client"
TOML = f"""
[limits]
body = "1MiB"
[cors]
origins = ["{PAGE}"]
[linker]
conventions = true
profiling_on_request = true
"""
COUNT = "/colours/v1/count"
PIXELS = {"model": "warm", "pixels": [[250, 0, 0]]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(live.ROOT / "plugins" / "linker-examples" / "server.py", folder)
    with live.live(folder, "--plugins", "linker:./server.py", toml=TOML) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: live.Live) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


def test_it_answers_as_its_clients_know_it(client: httpx2.Client) -> None:
    assert client.get("/colours/v1/health/ping").json() == {"is_alive": True}
    found = client.post(COUNT, json=PIXELS).json()
    assert found == {"code": 0, "msg": "Success", "data": {"red": 1}}
    assert client.post(COUNT, json={"model": "hot", "pixels": []}).status_code == 514


def test_what_the_guard_refuses_comes_in_the_envelope_too(client: httpx2.Client) -> None:
    answer = client.post(COUNT, content=bytes(2 * 1024 * 1024))
    assert answer.status_code == answer.json()["code"] == 413


def test_the_operator_alone_says_which_pages_may_call(client: httpx2.Client) -> None:
    allowed = client.post(COUNT, json=PIXELS, headers={"Origin": PAGE})
    assert allowed.headers["access-control-allow-origin"] == PAGE
    other = client.post(COUNT, json=PIXELS, headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_the_settings_file_lets_a_request_ask_for_its_profile(
    client: httpx2.Client, server: live.Live
) -> None:
    assert client.post(f"{COUNT}?PROFILING=1", json=PIXELS).status_code == 200
    report = server.await_record("request.profiled", path=COUNT)["report"]
    assert report


def test_its_requests_are_logged_without_their_secrets(
    client: httpx2.Client, server: live.Live
) -> None:
    fields = {"Authorization": SECRET, "X-Api-Key": SECRET, "X-Mark": "of-this-test"}
    client.post(COUNT, json={**PIXELS, "password": SECRET}, headers=fields)
    server.await_line(lambda line: "of-this-test" in line)
    server.await_line(lambda line: ">>>Params" in line and "'password': '***'" in line)
    assert not any(SECRET in line for line in server.logged)


def test_a_health_route_of_its_own_is_logged_by_nobody(
    client: httpx2.Client, server: live.Live
) -> None:
    client.get("/colours/v1/health/ping", headers={"X-Mark": "of-a-ping"})
    client.post(COUNT, json=PIXELS, headers={"X-Mark": "after-the-ping"})
    server.await_line(lambda line: "after-the-ping" in line)
    assert not any("of-a-ping" in line for line in server.logged)
