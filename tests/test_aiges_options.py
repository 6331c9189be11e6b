"""What the operator may decide of an AIGES wrapper, and how its server stops."""

import base64
import hashlib
import json
import signal
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiges_wrappers
import httpx2
import live
import pytest
from test_aiges_serving import ask, destroyed, envelope, hear, say, told
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from atomserve.surfaces.athena.signing import signature
from atomserve.testing import serve

PATH = "/v1/private/middle"
SETTINGS = """
drain_delay = 0
[aiges]
statuses = "native"
strict_accepts = true
validate = "strict"
text = "base64"
keys_file = "keys.json"
[models.middle]
queue_size = 1
[models.middle.config]
stay = true
"""
pytestmark = pytest.mark.timeout(60)
KEYS = {"key": {"secret": "a secret", "app_id": "tests"}, "any": {"secret": "another"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("strict")
    own = aiges_wrappers.write(folder, "middle")
    (folder / "keys.json").write_text(json.dumps(KEYS))
    with live.live(folder, "--plugins", f"aiges:{own}/wrapper.py", toml=SETTINGS) as running:
        running.await_ready()
        yield running


def signed(
    server: live.Live, body: bytes = b"", *, key: str = "key", method: str = "POST", skew: float = 0
) -> str:
    """Return the query of a request as clients sign it."""
    host, date = f"127.0.0.1:{server.port}", formatdate(time.time() + skew, usegmt=True)
    text = f"host: {host}\ndate: {date}\n{method} {PATH} HTTP/1.1"
    names = "host date request-line"
    if body:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        text, names = f"{text}\ndigest: SHA-256={digest}", f"{names} digest"
    mark = signature(KEYS[key]["secret"], text).decode()
    said = f'api_key="{key}", algorithm="hmac-sha256", headers="{names}", signature="{mark}"'
    authorization = base64.b64encode(said.encode()).decode()
    return urlencode({"host": host, "date": date, "authorization": authorization})


def send(server: live.Live, text: str, query: str | None = None, **params: Any) -> httpx2.Response:
    params.setdefault("result", {"encoding": "utf8"})
    query = signed(server) if query is None else query
    with server.client() as client:
        return client.post(f"{PATH}?{query}", json=envelope(text, **params))


def test_a_signed_request_is_answered_as_the_settings_say(server: live.Live) -> None:
    answer = send(server, "hello")
    assert answer.status_code == 200, answer.text
    block = answer.json()["payload"]["result"]
    assert block == {
        "encoding": "utf8",
        "seq": "0",
        "status": "3",
        "text": base64.b64encode(b"HELLO").decode(),
    }


@pytest.mark.parametrize(
    ("text", "params", "status", "code"),
    [
        ("code", {}, 500, 10909),
        ("hello", {"result": "as it is"}, 500, 10106),
        ("hello", {"how": "sideways"}, 422, 10163),
        ("hello", {"speed": 11}, 422, 10163),
        ("hello", {"speed": "x"}, 422, 10163),
    ],
)
def test_native_statuses_say_what_happened(
    server: live.Live, text: str, params: dict[str, Any], status: int, code: int
) -> None:
    answer = send(server, text, **params)
    assert (answer.status_code, answer.json()["header"]["code"]) == (status, code)


def test_a_request_without_a_signature_that_holds_is_refused(server: live.Live) -> None:
    assert send(server, "hello", "").status_code == 401
    assert send(server, "hello", signed(server, method="GET")).status_code == 401
    assert send(server, "hello", signed(server, skew=-3600)).status_code == 403
    assert "message" in send(server, "hello", "").json()


def test_a_key_is_good_for_its_own_application_alone(server: live.Live) -> None:
    body = json.dumps({"header": {"app_id": "other"}, "payload": {}}).encode()
    with server.client() as client:
        answer = client.post(f"{PATH}?{signed(server)}", content=body)
    assert (answer.status_code, answer.json()["header"]["code"]) == (403, 10313)


def test_a_signed_body_cannot_be_exchanged(server: live.Live) -> None:
    accepts = {"result": {"encoding": "utf8"}}
    body = json.dumps(envelope("hello", **accepts)).encode()
    digest = "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode()
    url = f"{PATH}?{signed(server, body)}"
    with server.client(headers={"Digest": digest}) as client:
        assert client.post(url, content=body).status_code == 200
        assert client.post(url, content=body.replace(b"tests", b"TESTS")).status_code == 401


def test_a_websocket_has_to_be_signed_too(server: live.Live) -> None:
    url = f"ws://127.0.0.1:{server.port}{PATH}"
    with pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    assert refused.value.response.status_code == 401
    with connect(f"{url}?{signed(server, method='GET')}", open_timeout=10) as socket:
        frame = envelope("hello", status=0)
        frame["header"]["app_id"] = "other"
        socket.send(json.dumps(frame))
        assert hear(socket)["header"]["code"] == 10313
        with pytest.raises(ConnectionClosed):
            hear(socket)


@pytest.mark.parametrize(
    ("spec", "flags", "words"),
    [
        ("aiges:./nowhere", (), "no file or folder"),
        ("aiges:./broken.py", (), "cannot be imported: ValueError: not today"),
        ("aiges:./middle", ("--executor", "thread"), "runs in a process of its own"),
        ("aigis:./middle", (), "no loader"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_2(
    tmp_path: Path, spec: str, flags: tuple[str, ...], words: str
) -> None:
    aiges_wrappers.write(tmp_path, "middle")
    (tmp_path / "broken.py").write_text("raise ValueError('not today')")
    with live.running(tmp_path, "--plugins", spec, *flags) as running:
        assert running.wait() == 2
        (line,) = (each for each in running.logged if not each.startswith("{"))
        assert words in line


def test_a_wrapper_that_refuses_to_begin_is_a_failed_model(tmp_path: Path) -> None:
    own = aiges_wrappers.write(tmp_path, "middle")
    source = (own / "wrapper.py").read_text()
    (own / "wrapper.py").write_text(source.replace("        return 0", "        return 7", 1))
    with live.running(tmp_path, "--plugins", "aiges:./middle") as running:
        line = running.await_line(lambda each: "wrapperInit refused" in each)
        assert "user error;code=7" in line


@pytest.mark.timeout(90)
def test_a_wrapper_that_ends_its_process_as_it_begins_fails_alone(tmp_path: Path) -> None:
    own = aiges_wrappers.write(tmp_path, "middle")
    source = (own / "wrapper.py").read_text()
    fatal = "        import os; os._exit(7)\n        return 0"
    (own / "wrapper.py").write_text(source.replace("        return 0", fatal, 1))
    aiges_wrappers.write(tmp_path, "old")
    toml = '[models.middle]\ncrash_limit = "2/60s"\n'
    with live.running(tmp_path, "--plugins", "aiges:./middle,old=aiges:./old", toml=toml) as other:
        other.await_record("model.failed", model="middle", within=40)
        other.await_line(lambda line: "old: ready" in line, within=40)
        with other.client() as client:
            assert told(ask(client, "hello", model="old")) == "HELLO"


def test_what_a_wrapper_prints_fails_no_request(tmp_path: Path) -> None:
    text = aiges_wrappers.MIDDLE.replace(
        'if text == b"code":', 'print("\\ud800")\n        if text == b"code":'
    )
    own = aiges_wrappers.write(tmp_path, "middle", text=text)
    with serve(f"aiges:{own}", executor="process") as client:
        assert told(ask(client, "hello")) == "HELLO"


def test_a_test_may_serve_a_wrapper_by_its_loader(tmp_path: Path) -> None:
    own = aiges_wrappers.write(tmp_path, "middle")
    with serve(f"renamed=aiges:{own}", executor="process") as client:
        assert client.call("renamed", text="hello") == {"result": "HELLO"}
        assert told(ask(client, "hello", model="renamed")) == "HELLO"
    with pytest.raises(ValueError, match="process of its own"), serve(f"aiges:{own}"):
        pass


def test_a_stop_ends_sessions_finishes_the_wrapper_and_outlives_its_threads(
    tmp_path: Path,
) -> None:
    own = aiges_wrappers.write(tmp_path, "middle", toml="[fc]\nmax = 4\n")
    toml = "drain_delay = 0\ndrain_timeout = 0.5\n[models.middle.config]\nstay = true\n"
    with live.live(tmp_path, "--plugins", f"aiges:{own}", toml=toml) as running:
        running.await_ready()
        with running.client() as client:
            assert told(ask(client, "hello")) == "HELLO"
        url = f"ws://127.0.0.1:{running.port}{PATH}"
        with connect(url, open_timeout=10) as idle, connect(url, open_timeout=10) as busy:
            say(busy, "silent", 0)
            sid = hear(busy)["header"]["sid"]
            running.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert hear(busy)["header"]["code"] == 10002
            with pytest.raises(ConnectionClosed):
                hear(busy)
        assert running.wait(20) == 0
        destroyed(running, sid)
        assert any("finished" in line for line in running.logged)
