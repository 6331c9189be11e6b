"""What clients and servers tell each other of queues, priorities, tenants and caches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from atomserve import Text, Wrapper, current
from atomserve.errors import Overloaded, QuotaExceeded
from atomserve.guard.problems import headers_of
from atomserve.surfaces.priorities import urgency
from atomserve.testing import Client, serve


class Hold(Wrapper):
    """Say in which order the requests ran, once the test lets them."""

    executor = "thread"
    queue_size = 4
    order: list[str]
    inside: threading.Semaphore
    go: threading.Semaphore

    def predict(self, name: Text) -> Text:
        Hold.inside.release()
        Hold.go.acquire(timeout=10)
        Hold.order.append(name)
        return f"{current().tenant}:{name}"


class Kept(Hold):
    cacheable = True


class Who(Wrapper):
    executor = "thread"

    def predict(self) -> str:
        return current().tenant


class Talks(Wrapper):
    executor = "thread"

    def session(self, inputs: Iterator[int]) -> Iterator[str]:
        for _ in inputs:
            yield current().tenant


@pytest.fixture
def server() -> Iterator[Client]:
    Hold.order, Hold.inside, Hold.go = [], threading.Semaphore(0), threading.Semaphore(0)
    with serve(Hold, Kept, Who, Talks, tenant_header="X-Tenant") as client:
        yield client


@pytest.fixture
def asking() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def ask(server: Client, model: str, name: str, **headers: str) -> httpx2.Response:
    fields = {key.replace("_", "-"): value for key, value in headers.items()}
    return httpx2.post(
        f"{server.url}/v1/models/{model}/predict", json={"name": name}, headers=fields
    )


def waiting(server: Client, model: str, count: int) -> None:
    """Wait until so many requests wait for a slot."""
    while server.get(f"/v1/models/{model}").json()["queue"]["waiting"] != count:
        pass


def test_a_full_queue_says_what_its_bound_is_and_when_to_come_back(
    server: Client, asking: ThreadPoolExecutor
) -> None:
    asked = [asking.submit(ask, server, "hold", "first")]
    Hold.inside.acquire()
    asked += [asking.submit(ask, server, "hold", f"n{n}") for n in range(4)]
    waiting(server, "hold", 4)
    refused = ask(server, "hold", "one too many")
    assert refused.status_code == 429
    seconds = refused.headers["retry-after"]
    assert int(seconds) >= 1
    assert refused.headers["ratelimit-policy"] == '"queue";q=4'
    assert refused.headers["ratelimit"] == f'"queue";r=0;t={seconds}'
    Hold.go.release(5)
    assert {each.result().status_code for each in asked} == {200}


def test_a_client_says_how_urgent_it_is(server: Client, asking: ThreadPoolExecutor) -> None:
    asked = [asking.submit(ask, server, "hold", "first")]
    Hold.inside.acquire()
    for number, (name, priority) in enumerate(
        [("late", "u=7, i"), ("usual", "urgent!"), ("soon", "i, u=1")], 1
    ):
        asked.append(asking.submit(ask, server, "hold", name, priority=priority))
        waiting(server, "hold", number)
    Hold.go.release(4)
    assert {each.result().status_code for each in asked} == {200}
    assert Hold.order == ["first", "soon", "usual", "late"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("u=0", 0),
        ("u=7", 7),
        ("u=1, i", 1),
        ("i=?0, u=2", 2),
        ('u=2;a=b;c,  other=(1 2.5 "x\\"y" :YQ==: tok/en);q=1\t,\tlast', 2),
        ("u=5, u=6", 6),
        ("i", 3),
        ("", 3),
        ("u=8", 3),
        ("u=-1", 3),
        ("u=1.0", 3),
        ("u", 3),
        ('u="1"', 3),
        ("u=1,", 3),
        ("u=1 u=2", 3),
        ("U=1", 3),
        ("u=1, =", 3),
        ("u=1, x=(1", 3),
        ("u=1\n", 3),
        ("u=1" + " " * 300, 3),
        ("u=1, " + "x" * 300, 3),
    ],
)
def test_only_a_well_formed_field_says_how_urgent_a_request_is(field: str, expected: int) -> None:
    assert urgency(field) == expected


@pytest.mark.parametrize(
    ("given", "said"), [({}, ""), ({"X-Tenant": "acme & sons"}, "acme & sons"), ({"X-No": "a"}, "")]
)
def test_a_header_names_the_tenant(server: Client, given: dict[str, str], said: str) -> None:
    answer = server.post("/v1/models/who/predict", json={}, headers=given)
    assert (answer.status_code, answer.json()) == (200, said)


@pytest.mark.parametrize(
    ("name", "status"), [(b"t" * 128, 200), (b"t" * 129, 400), (b"\xe4", 400), (b"a\tb", 400)]
)
def test_a_tenants_name_is_short_and_can_be_printed(
    server: Client, name: bytes, status: int
) -> None:
    answer = server.post("/v1/models/who/predict", json={}, headers=[(b"X-Tenant", name)])
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["code"] == "bad_request"


def test_a_session_has_a_tenant_and_an_urgency_too(server: Client) -> None:
    url = f"{server.url.replace('http', 'ws')}/v1/models/talks/session"
    headers = {"X-Tenant": "acme", "Priority": "u=1"}
    with connect(url, additional_headers=headers, proxy=None) as session:
        session.send('{"data":1}')
        assert session.recv() == '{"data":"acme"}'
    with pytest.raises(InvalidStatus) as caught:
        connect(url, additional_headers={"X-Tenant": "t" * 129}, proxy=None)
    assert caught.value.response.status_code == 400


def test_without_the_setting_no_header_names_a_tenant() -> None:
    with serve(Who) as server:
        answer = server.post("/v1/models/who/predict", json={}, headers={"X-Tenant": "acme"})
        assert answer.json() == ""


def test_the_cache_says_what_it_did(server: Client, asking: ThreadPoolExecutor) -> None:
    first = asking.submit(ask, server, "kept", "a")
    Hold.inside.acquire()
    second = asking.submit(ask, server, "kept", "a", X_Tenant="other")
    while "atomserve_requests_in_flight 3" not in server.get("/metrics").text:
        pass
    Hold.go.release()
    assert first.result().headers["cache-status"] == "atomserve; fwd=miss; stored; ttl=300"
    # It has begun, but its body may have arrived only after the first one's answer was kept.
    status = second.result().headers["cache-status"]
    assert status == "atomserve; fwd=miss; collapsed" or status.startswith("atomserve; hit; ttl=")
    assert ask(server, "kept", "a").headers["cache-status"].startswith("atomserve; hit; ttl=")
    assert first.result().json() == second.result().json() == ":a"
    assert Hold.order == ["a"]


def test_a_model_without_a_cache_does_not_speak_of_one(server: Client) -> None:
    Hold.go.release()
    assert "cache-status" not in ask(server, "hold", "a").headers


def test_what_bypasses_the_cache_is_refused_as_without_one(server: Client) -> None:
    for model in ("hold", "kept"):
        answer = server.post(
            f"/v1/models/{model}/predict",
            content=b'{"name":"a","name":"b"}',
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Overloaded(), {}),
        (Overloaded(retry_after=1.2), {"retry-after": "2"}),
        (
            Overloaded(retry_after=0.1, limit=32),
            {
                "retry-after": "1",
                "ratelimit-policy": '"queue";q=32',
                "ratelimit": '"queue";r=0;t=1',
            },
        ),
        (Overloaded(limit=3), {"ratelimit-policy": '"queue";q=3', "ratelimit": '"queue";r=0'}),
        (
            QuotaExceeded(retry_after=2.0, limit=5),
            {"retry-after": "2", "ratelimit-policy": '"quota";q=5', "ratelimit": '"quota";r=0;t=2'},
        ),
    ],
)
def test_a_refusal_says_what_is_known_of_its_limit(error: Any, told: dict[str, str]) -> None:
    assert {name.decode(): value.decode() for name, value in headers_of(error)} == told
