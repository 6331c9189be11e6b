"""Resources that an administrator has a model load: in all of its workers, or in none."""

import base64
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import live
import pytest
from websockets.sync.client import connect

from atomserve.configuration.load import load_settings
from atomserve.errors import ConfigError, Forbidden, Misdirected
from atomserve.surfaces.admin.access import Access

pytestmark = pytest.mark.timeout(60)

WRAPPER = """
import os, threading, time
from aiges.dto import Response, ResponseData, DataListCls, SessionCreateResponse, callback
from aiges.sdk import WrapperBase, StringBodyField


class Request:
    input1 = StringBodyField(key="text", value=b"hello")


class Answer:
    accept1 = StringBodyField(key="result")


def piece(text):
    item = ResponseData()
    item.key, item.status, item.type = "result", 3, 0
    item.setData(text.encode())
    response = Response()
    response.list = [item]
    return response


class Wrapper(WrapperBase):
    serviceId = "personal"
    requestCls, responseCls = Request(), Answer()

    def wrapperInit(self, config):
        self.known = {}
        self.within = threading.Lock()
        return 0

    def wrapperFini(self):
        return 0

    def wrapperError(self, ret):
        return {7: "not this one", 8: "no such thing"}.get(ret, "")

    def wrapperLoadRes(self, reqData, resId):
        assert self.within.acquire(blocking=False), "entered twice"
        try:
            data = reqData.list[0].data
            if data == b"refuse":
                return 7
            if data == b"raise":
                raise RuntimeError("a secret")
            if data in (b"once", b"die"):  # in one of the processes
                try:
                    os.close(os.open(data, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return 7
            if data == b"die":
                os._exit(1)
            if data == b"first":  # in no process that starts later
                if os.path.exists("started"):
                    return 7
            if data == b"hold":
                time.sleep(3600)
            self.known[resId] = {node.key: (node.data, node.type) for node in reqData.list}
            return 0
        finally:
            self.within.release()

    def wrapperUnloadRes(self, resId):
        if os.path.exists("stuck"):
            return 8
        return 0 if self.known.pop(resId, None) else 8

    def wrapperOnceExec(self, params, reqData, usrTag="", persId=0):
        with self.within:
            text = reqData.get("text").data
            if text == b"wait":
                open("waiting", "w").close()
                while not os.path.exists("go"):
                    time.sleep(0.01)
            return piece(repr([os.getpid(), persId, self.known.get(persId)]))

    def wrapperCreate(self, params, sid, persId=0):
        self.session = persId
        return SessionCreateResponse(handle=sid)

    def wrapperWrite(self, handle, req, sid):
        callback(piece(repr(self.session)), handle)
        return 0

    def wrapperDestroy(self, handle):
        return 0
"""
PLAIN = """
from atomserve import Wrapper


class Plain(Wrapper):
    def predict(self, text: str) -> str:
        return text
"""
PLACE = "/admin/v1/models/personal/resources/"


def write(folder: Path, name: str = "personal", *, text: str = WRAPPER) -> str:
    place = folder / name
    place.mkdir()
    (place / "wrapper.py").write_text(text)
    (place / "aiges.toml").write_text("[fc]\nttl = 10000\n[aiges]\nsub = 'ase'\n")
    return f"aiges:./{name}"


class Administered:
    """A running server, its clients and its administrators."""

    def __init__(self, server: live.Live, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.socket = folder / "admin.sock"
        [place] = server.await_record("admin.listening")["places"]
        local = place.startswith("unix:")
        self.admin = httpx2.Client(
            base_url="http://localhost" if local else f"http://{place}",
            transport=httpx2.HTTPTransport(uds=str(self.socket)) if local else None,
            trust_env=False,
            timeout=30,
        )
        self.client = server.client()

    def load(self, name: str, data: bytes, key: str = "lora", model: str = "personal") -> Any:
        place = f"/admin/v1/models/{model}/resources/{name}"
        return self.admin.put(place, files={key: ("x.bin", data, "application/octet-stream")})

    def unload(self, name: str) -> Any:
        return self.admin.delete(PLACE + name)

    def held(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.admin.get("/admin/v1/resources").json()["models"][
            "personal"
        ]
        return found

    def ask(self, name: str | None = None, text: str = "hello") -> str:
        encoded = base64.b64encode(text.encode()).decode()
        header = {"app_id": "tests"} | ({} if name is None else {"res_id": name})
        envelope = {"header": header, "payload": {"text": {"text": encoded}}}
        answer = self.client.post("/v1/private/personal", json=envelope)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["payload"]["result"]["text"])

    def rows(self) -> list[dict[str, Any]]:
        status = self.client.get("/v1/status").json()
        found: list[dict[str, Any]] = status["models"]["personal"]["slots"]
        return found

    def await_rows(
        self, count: int, without: Sequence[dict[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """Wait until so many workers, spares included, wait for jobs, and none of another time."""
        deadline = time.monotonic() + 30
        gone = {row["pid"] for row in without}
        while True:
            rows = [row for row in self.rows() if row["state"] in ("ready", "spare")]
            if len(rows) == count and not gone & {row["pid"] for row in rows}:
                return rows
            assert time.monotonic() < deadline, self.rows()
            time.sleep(0.05)


@contextmanager
def administered(
    folder: Path, toml: str = "", *more: str, admin: str = "unix:admin.sock"
) -> Iterator[Administered]:
    """Run a server whose wrapper takes resources, and enter when it is ready."""
    plugins = ",".join((write(folder), *more))
    arguments = ("--plugins", plugins, "--admin", admin)
    with live.running(folder, *arguments, toml=f"drain_delay = 0\n{toml}") as server:
        server.await_ready(within=40)
        found = Administered(server, folder)
        with found.admin, found.client:
            yield found


SETTINGS = """
[resources]
most = 2
largest = "100KiB"
[models.personal]
slots = 2
spares = 1
timeout = "20s"
crash_limit = "50/60s"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    folder = tmp_path_factory.mktemp("resources")
    (folder / "plain.py").write_text(PLAIN)
    with administered(folder, SETTINGS, "./plain.py") as running:
        yield running


@pytest.fixture
def it(server: Administered) -> Iterator[Administered]:
    """The server, with all its workers and without any resource."""
    server.await_rows(3)
    yield server
    for held in server.held():
        server.unload(held["resource"])


def test_a_resource_is_loaded_by_every_slot_and_spare_and_outlives_them(it: Administered) -> None:
    before = it.await_rows(3)
    answer = it.load("7", b"weights")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["done"] is True
    assert [(row["slot"], row["state"]) for row in document["slots"]] == [
        (0, "loaded"),
        (1, "loaded"),
        (None, "loaded"),
    ]
    assert "7, {'lora': (b'weights', 4)}" in it.ask("7")
    assert it.ask().endswith("0, None]")

    for row in before:
        os.kill(row["pid"], signal.SIGKILL)
    for row in before:
        it.server.await_record("worker.died", pid=row["pid"], within=10)
    rows = it.await_rows(3, without=before)
    for row in rows:
        it.server.await_record("resource.replayed", pid=row["pid"], resource="7")
    assert {row["pid"] for row in it.held()[0]["slots"]} == {row["pid"] for row in rows}
    assert "7, {'lora': (b'weights', 4)}" in it.ask("7")

    gone = it.unload("7").json()
    assert gone["done"] is True
    assert {row["state"] for row in gone["slots"]} == {"unloaded"}
    assert it.ask("7").endswith("7, None]")
    assert it.held() == []
    again = it.unload("7")
    assert (again.status_code, again.json()["code"]) == (404, "resource_not_found")


def test_what_one_slot_refuses_is_unloaded_from_the_others(it: Administered) -> None:
    answer = it.load("3", b"once")
    document = answer.json()
    assert (answer.status_code, document["done"]) == (500, False)
    assert sorted(row["state"] for row in document["slots"]) == ["failed", "failed", "unloaded"]
    failed = [row for row in document["slots"] if row["state"] == "failed"]
    assert {row["code"] for row in failed} == {"wrapper_refused"}
    assert {row["detail"] for row in failed} == {"not this one;code=7"}
    assert it.held() == []
    assert {it.ask("3").partition(",")[2] for _ in range(8)} == {" 3, None]"}
    assert it.load("3", b"fine").status_code == 200


@pytest.mark.parametrize(
    ("data", "state", "detail"),
    [
        (b"refuse", "failed", "not this one;code=7"),
        (b"raise", "failed", "The model failed on this request;code=-1"),
        (b"die", "lost", "it ended meanwhile"),
    ],
)
def test_a_load_that_fails_says_how_and_leaves_the_model_serving(
    it: Administered, data: bytes, state: str, detail: str
) -> None:
    rows = it.load("1", data).json()["slots"]
    assert (state, detail) in {(row["state"], row["detail"]) for row in rows}
    it.await_rows(3)
    assert it.held() == []
    assert it.load("1", b"fine").json()["done"] is True


def test_a_replay_that_fails_is_a_worker_that_cannot_load(tmp_path: Path) -> None:
    with administered(tmp_path, '[models.personal]\ncrash_limit = "1/600s"\n') as it:
        _replay_fails(it)
        assert stat.S_IMODE(it.socket.stat().st_mode) == 0o600
    assert not it.socket.exists()


def _replay_fails(it: Administered) -> None:
    assert it.load("1", b"first").status_code == 200
    (it.folder / "personal" / "started").touch()
    os.kill(it.rows()[0]["pid"], signal.SIGKILL)
    died = it.server.await_record(
        "worker.died", reason="resource 1: not this one;code=7", within=15
    )
    assert died["cause"] == "broken"
    deadline = time.monotonic() + 30
    while (state := it.client.get("/v1/status").json()["models"]["personal"])["state"] != "failed":
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    assert state["detail"] == "resource 1: not this one;code=7"


def test_a_wrapper_is_not_entered_by_a_load_while_it_runs_a_request(it: Administered) -> None:
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(it.ask, "5", "wait")
        deadline = time.monotonic() + 10
        while not (it.folder / "personal" / "waiting").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        loading = threads.submit(it.load, "5", b"late")
        (it.folder / "personal" / "go").touch()
        assert asked.result(20).endswith("5, None]")
        assert loading.result(20).json()["done"] is True
    assert "late" in it.ask("5")


@pytest.mark.slow
def test_a_load_that_hangs_is_answered_in_time(tmp_path: Path) -> None:
    toml = '[resources]\ntimeout = "300ms"\n'
    with administered(tmp_path, toml, admin="127.0.0.1:0") as it:
        for name in ("Host", "Origin"):
            refused = it.admin.get("/admin/v1/resources", headers={name: "evil.example"})
            assert refused.json()["code"] == {"Host": "misdirected", "Origin": "forbidden"}[name]
        _load_hangs(it)


def _load_hangs(it: Administered) -> None:
    answer = it.load("1", b"hold")
    assert answer.status_code == 504
    assert [row["state"] for row in answer.json()["slots"]] == ["silent"]
    os.kill(it.rows()[0]["pid"], signal.SIGKILL)
    it.server.await_record("worker.died", within=10)
    it.await_rows(1)
    assert it.held() == []


def test_resources_have_bounds_and_names(it: Administered) -> None:
    assert it.load("a", b"x" * 100_000).status_code == 200
    assert it.load("a", b"x").json()["code"] == "conflict"
    assert it.load("b", b"x").status_code == 200
    assert it.load("c", b"x").json()["code"] == "conflict"
    assert it.load("b2", b"x" * 200_000).status_code == 413
    assert it.load("-", b"x").json()["code"] == "bad_request"
    assert it.load("a", b"x", model="other").json()["code"] == "model_not_found"
    raw = it.admin.put(PLACE + "d", content=b"x", headers={"content-type": "text/plain"})
    assert raw.json()["code"] == "unsupported_media_type"
    empty = it.admin.put(PLACE + "d", headers={"content-type": "application/json"})
    assert empty.json()["code"] == "bad_request"
    assert it.admin.get("/admin/v1/nothing").json()["code"] == "not_found"
    assert it.admin.post("/admin/v1/resources").status_code == 405
    assert it.client.get("/admin/v1/resources").status_code == 404


def test_an_envelope_s_payload_is_a_resource_too_and_native_requests_name_it(
    it: Administered,
) -> None:
    block = {"other": base64.b64encode(b"weights").decode()}
    answer = it.admin.put(PLACE + "7", json={"payload": {"lora": block}})
    assert answer.json()["done"] is True, answer.text
    answer = it.client.post("/v1/models/personal/predict", json={"text": "hello", "res_id": 7})
    assert "7, {'lora': (b'weights', 4)}" in answer.json()["result"]
    with connect(f"ws://127.0.0.1:{it.server.port}/v1/private/personal") as socket:
        text = {"text": base64.b64encode(b"x").decode(), "status": 2}
        header = {"app_id": "tests", "res_id": "7", "status": 2}
        socket.send(json.dumps({"header": header, "payload": {"text": text}}))
        socket.recv(timeout=10)
        told = json.loads(socket.recv(timeout=10))["payload"]["result"]["text"]
    assert base64.b64decode(told) == b"7"


def test_an_api_process_that_starts_later_serves_the_administration(it: Administered) -> None:
    assert it.load("1", b"kept").status_code == 200
    [api] = it.client.get("/v1/status").json()["api_processes"]
    os.kill(api["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        try:
            assert [held["resource"] for held in it.held()] == ["1"]
            break
        except httpx2.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_only_wrappers_that_have_a_method_for_it_load_resources(it: Administered) -> None:
    answer = it.load("1", b"x", model="plain")
    assert (answer.status_code, answer.json()["code"]) == (501, "not_supported")
    assert "wrapper" in answer.json()["detail"]
    assert list(it.admin.get("/admin/v1/resources").json()["models"]) == ["personal"]


def test_the_command_line_loads_unloads_and_lists(it: Administered) -> None:
    (it.folder / "weights.bin").write_bytes(b"weights")

    def order(*arguments: str) -> tuple[int, str]:
        told = subprocess.run(  # noqa: PLW1510 - the code is looked at
            live.command("resources", *arguments),
            cwd=it.folder,
            env=live.environment() | {"ATOMSERVE_ADMIN": "unix:admin.sock"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return told.returncode, told.stdout + told.stderr

    code, told = order("load", "personal", "7", "lora=weights.bin")
    assert (code, told.splitlines()[0]) == (0, "personal, resource 7: done")
    assert [held["resource"] for held in it.held()] == ["7"]
    code, told = order("list")
    assert (code, "personal" in told, "loaded" in told) == (0, True, True)
    it.unload("7")
    code, told = order("unload", "personal", "7", "--json")
    assert (code, "has loaded no resource 7" in told) == (1, True)
    code, told = order("list", "--admin", "unix:nowhere.sock")
    assert (code, "nothing answers" in told) == (1, True)


def test_what_cannot_be_unloaded_stays_and_can_be_tried_again(it: Administered) -> None:
    it.load("1", b"x")
    stuck = it.folder / "personal" / "stuck"
    stuck.touch()
    answer = it.unload("1")
    stuck.unlink()
    document = answer.json()
    assert (answer.status_code, document["done"]) == (500, False)
    assert {row["detail"] for row in document["slots"]} == {"no such thing;code=8"}
    assert [held["unloading"] for held in it.held()] == [True]
    assert it.load("1", b"x").json()["code"] == "conflict"
    assert it.unload("1").json()["done"] is True
    assert it.held() == []


def test_settings_of_aiges_toml_that_change_nothing_are_warned_of(it: Administered) -> None:
    warned = it.server.await_record("config.idle", key="fc.ttl")
    assert "sessionTimeout" in warned["instead"]


def test_two_models_of_one_path_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    named = WRAPPER.replace('serviceId = "personal"', 'serviceId = "NAME"\n    route = "/v1/same"')
    plugins = ",".join(
        write(tmp_path, name, text=named.replace("NAME", name)) for name in ("one", "two")
    )
    with live.running(tmp_path, "--plugins", plugins) as server:
        assert server.wait(30) == 2
        [line] = [line for line in server.logged if "two models are asked under /v1/same" in line]
        assert "NAME=" in line


@pytest.mark.parametrize(
    ("headers", "server", "error"),
    [
        ([(b"host", b"localhost:1")], ("127.0.0.1", 1), None),
        ([(b"host", b"[::1]:1")], ("::1", 1), None),
        ([(b"host", b"admin.example")], ("10.0.0.1", 1), None),
        ([(b"host", b"evil.example:1")], ("127.0.0.1", 1), Misdirected),
        ([], ("127.0.0.1", 1), Misdirected),
        ([(b"host", b"any")], None, None),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"none")], ("127.0.0.1", 1), None),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"cross-site")], ("::1", 1), Forbidden),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"same-site")], ("::1", 1), Forbidden),
        ([(b"host", b"localhost"), (b"origin", b"http://localhost")], ("::1", 1), Forbidden),
        ([(b"origin", b"null")], None, Forbidden),
    ],
)
def test_pages_and_other_names_may_not_administer(
    headers: list[tuple[bytes, bytes]], server: Any, error: type[Exception] | None
) -> None:
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def unused(*_: Any) -> Any:
        raise AssertionError

    scope = {"type": "http", "headers": headers, "server": server}
    access = Access(app, ["Admin.Example"])
    if error is None:
        anyio.run(access, scope, unused, unused)
        assert reached == [scope]
    else:
        with pytest.raises(error):
            anyio.run(access, scope, unused, unused)
        assert not reached


@pytest.mark.parametrize(
    ("admin", "hosts", "message"),
    [
        ("127.0.0.1:9000", "", ""),
        ("[::1]:9000", "", ""),
        ("localhost:9000", "", ""),
        ("unix:/run/admin.sock", "", ""),
        ("0.0.0.0:9000", "", "other machines reach 0.0.0.0"),
        ("admin.example:9000", "", "other machines reach admin.example"),
        ("0.0.0.0:9000", "admin.example", ""),
        ("9000", "", "expected unix:PATH or HOST:PORT"),
    ],
)
def test_other_machines_administer_only_by_names_that_are_listed(
    admin: str, hosts: str, message: str
) -> None:
    flags = {"admin": admin, "admin_hosts": [hosts] if hosts else []}
    if not message:
        assert load_settings(config_file=None, environ={}, flags=flags).settings.admin == admin
        return
    with pytest.raises(ConfigError, match=message):
        load_settings(config_file=None, environ={}, flags=flags)
