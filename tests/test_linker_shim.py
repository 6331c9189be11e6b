"""The modules that linker_atom's services import: every name is there and does what it is for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import fastapi
import pydantic
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from atomserve import sealed
from atomserve.compat.linker_atom.shim.linker_atom import deploy
from atomserve.compat.linker_atom.shim.linker_atom.api.app import get_app
from atomserve.compat.linker_atom.shim.linker_atom.api.base import UdfAPIRoute
from atomserve.compat.linker_atom.shim.linker_atom.api.schema import response
from atomserve.compat.linker_atom.shim.linker_atom.config import Settings
from atomserve.compat.linker_atom.shim.linker_atom.config.service import read_settings
from atomserve.compat.linker_atom.shim.linker_atom.dependency.model_protector import ModelProtector
from atomserve.compat.linker_atom.shim.linker_atom.lib import requests
from atomserve.compat.linker_atom.shim.linker_atom.lib.common import (
    LRUCache,
    catch_exc,
    format_long_val,
    record_duration,
)
from atomserve.compat.linker_atom.shim.linker_atom.lib.exception import (
    FAIL,
    SUCCESS,
    VQL_MESSAGE_MAP,
    VqlError,
)
from atomserve.compat.linker_atom.shim.linker_atom.lib.log import logger
from atomserve.compat.linker_atom.variables import service_environment
from atomserve.errors import ConfigError, MissingExtra, TooLarge
from atomserve.settings import LinkerSettings
from atomserve.settings import Settings as Decided
from atomserve.telemetry.profiles import Profiles

SECRET = "a-secret-of-the-client"
ROOT = Path(__file__).parent.parent
EVERYWHERE = ["--host", "0.0.0.0"]
META = {
    "servingHost": "serving.example",
    "servingPort": "0",
    "abilityCode": "A",
    "abilityCodeInstance": "AI",
    "abilityDependAtomCodes": ["x", "y"],
    "atomCode": "C",
    "modelIds": "one, two,,three",
    "svcAddress": "http://name.space:8000",
    "atomProcessUrl": "/atom/process/2",
    "k8sHealthcheckUrl": "/own/ping",
    "somethingNew": 1,
}


# The application.


class Body(pydantic.BaseModel):
    n: int


def service(**config: Any) -> fastapi.FastAPI:
    app = get_app({"atom_api_prefix": "/atom", **config})
    route = UdfAPIRoute()

    @route.post("/double")
    async def double(body: Body) -> dict[str, int]:
        return {"n": body.n * 2}

    @route.get("/fail/{how}")
    def fail(how: str) -> Any:
        errors: dict[str, Exception] = {
            "vql": VqlError(504),
            "own": VqlError(504, "not this"),
            "unknown": VqlError(777),
            "bug": RuntimeError(f"{SECRET} of the service"),
            "table": fastapi.HTTPException(409, {"why": "x"}, headers={"X-Why": "y"}),
            "usual": fastapi.HTTPException(400),
            "bodiless": fastapi.HTTPException(304),
            "ours": TooLarge("over the limit"),
        }
        raise errors[how]

    @route.get("/nan")
    async def nan() -> Any:
        return {"x": float("nan"), "text": "高"}

    @route.post("/raw")
    async def raw(request: fastapi.Request) -> int:
        return len(await request.body())

    @route.post("/form")
    async def form(name: Annotated[str, fastapi.Form()], file: fastapi.UploadFile) -> str:
        return name + (await file.read()).decode()

    @route.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    app.include_router(route, prefix=app.state.settings.atom_api_prefix)
    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(service(), raise_server_exceptions=False) as client:
        yield client


def test_the_health_route_stands_below_the_prefix(client: TestClient) -> None:
    assert client.get("/atom/v1/health/ping").json() == {"is_alive": True}


def test_the_health_route_is_the_one_that_meta_names() -> None:
    with TestClient(service(serving_meta_raw=json.dumps(META))) as client:
        assert client.get("/own/ping").json() == {"is_alive": True}


def test_a_route_answers_with_json(client: TestClient) -> None:
    assert client.post("/atom/double", json={"n": 2}).json() == {"n": 4}
    assert client.get("/atom/nan").text == '{"x":null,"text":"高"}'


def test_a_form_reaches_its_route_though_it_is_logged(client: TestClient) -> None:
    files = {"file": ("a.txt", b"tea")}
    assert client.post("/atom/form", data={"name": "green "}, files=files).json() == "green tea"


def test_a_websocket_passes_all_of_it(client: TestClient) -> None:
    with client.websocket_connect("/atom/talk") as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize(
    ("how", "status", "envelope"),
    [
        ("vql", 504, {"code": 504, "msg": "图片错误：无法识别", "data": {}}),
        ("own", 504, {"code": 504, "msg": "not this", "data": {}}),
        ("unknown", 777, {"code": 777, "msg": "", "data": {}}),
        ("table", 409, {"code": 409, "msg": "Failed", "data": {"why": "x"}}),
        ("usual", 400, {"code": 400, "msg": "External Invoke Error", "data": {}}),
    ],
)
def test_errors_come_in_the_envelope(
    client: TestClient, how: str, status: int, envelope: dict[str, Any]
) -> None:
    answer = client.get(f"/atom/fail/{how}")
    assert (answer.status_code, answer.json()) == (status, envelope)


def test_an_error_keeps_its_headers(client: TestClient) -> None:
    assert client.get("/atom/fail/table").headers["x-why"] == "y"
    assert client.get("/atom/fail/bodiless").content == b""


def test_nothing_under_a_path_is_not_found(client: TestClient) -> None:
    answer = client.get("/nowhere")
    expected = {"code": 404, "msg": "NOT FOUND", "data": {}}
    assert (answer.status_code, answer.json()) == (404, expected)


def test_what_does_not_fit_is_listed_without_repeating_it(client: TestClient) -> None:
    answer = client.post("/atom/double", json={"n": SECRET})
    found = answer.json()
    assert (answer.status_code, found["code"], found["msg"]) == (422, 422, "Request Entity Error")
    assert [fault["loc"] for fault in found["data"]] == [["body", "n"]]
    assert SECRET not in answer.text


def test_a_bug_tells_its_trace_id_alone(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/atom/fail/bug", headers={"Origin": "https://page.example"})
    found = answer.json()
    assert (answer.status_code, found["msg"]) == (500, "Internal Server Error")
    assert SECRET not in answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    assert found["data"]["trace_id"] in caplog.text
    assert SECRET in caplog.text


def test_what_the_server_itself_refuses_is_left_to_it() -> None:
    with TestClient(service()) as client, pytest.raises(TooLarge):
        client.get("/atom/fail/ours")


def test_every_page_may_call_without_credentials(client: TestClient) -> None:
    asks = {"Origin": "https://page.example", "Cookie": "a=b"}
    answer = client.get("/atom/nan", headers=asks)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    asks |= {"Access-Control-Request-Method": "POST"}
    assert client.options("/atom/double", headers=asks).status_code == 200


def test_the_operators_word_on_cors_takes_the_place_of_that() -> None:
    app = service()

    async def decided(scope: Any, receive: Any, send: Any) -> None:
        scope["atomserve.cors"] = True
        await app(scope, receive, send)

    with TestClient(decided) as client:
        answer = client.get("/atom/nan", headers={"Origin": "https://page.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_the_pages_of_the_api_may_be_switched_off(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    with TestClient(service(docs_switch=False, atom_title="Teas")) as bare:
        assert (bare.get("/docs").status_code, bare.get("/redoc").status_code) == (404, 404)
        assert bare.get("/openapi.json").json()["info"]["title"] == "Teas"


def test_start_and_stop_events_of_a_service_run() -> None:
    app = get_app()
    seen: list[str] = []
    with pytest.warns(DeprecationWarning):
        app.on_event("startup")(lambda: seen.append("up"))
        app.on_event("shutdown")(lambda: seen.append("down"))
    with TestClient(app):
        assert seen == ["up"]
    assert seen == ["up", "down"]


def logged(caplog: pytest.LogCaptureFixture, prefix: str) -> str:
    lines = [each.getMessage() for each in caplog.records if prefix in each.getMessage()]
    return "\n".join(lines)


def test_a_request_is_logged_cut_and_masked(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fields = {"Authorization": SECRET, "X-Plain": "shown", "Content-Type": "text/plain"}
    answer = client.post("/atom/raw?api_key=" + SECRET, content="x" * 1000, headers=fields)
    assert answer.json() == 1000
    assert "'x-plain': 'shown'" in logged(caplog, ">>>Headers")
    assert "x" * 200 in logged(caplog, ">>>Params")
    assert "x" * 201 not in logged(caplog, ">>>Params")
    assert "'method': 'POST'" in logged(caplog, "<<<Duration")
    service_log = [each.getMessage() for each in caplog.records if each.name == logger.name]
    assert not any(SECRET in line for line in service_log)


def test_of_a_large_body_only_the_size_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert client.post("/atom/raw", content=bytes(1_000_000)).json() == 1_000_000
    assert "'size': 1000000" in logged(caplog, ">>>Params")


def test_the_operator_may_have_no_parameters_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with TestClient(service(log_parameters=False)) as client:
        client.get("/atom/nan")
    assert not logged(caplog, ">>>Headers")
    assert logged(caplog, "<<<Duration")


@pytest.mark.parametrize(
    ("config", "path", "profiled"),
    [
        ({}, "/atom/nan?PROFILING=1", False),
        ({"profiling_on_request": True}, "/atom/nan?PROFILING=1", True),
        ({"profiling_on_request": True}, "/atom/nan", False),
        ({"profiling": True}, "/atom/nan", True),
    ],
)
def test_requests_are_profiled_where_the_operator_says_so(
    config: dict[str, Any], path: str, profiled: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with TestClient(service(**config)) as client:
        assert client.get(path).status_code == 200
    assert ("request.profiled" in capsys.readouterr().out) is profiled


# Settings.


def test_settings_are_the_environments() -> None:
    settings = read_settings(
        {
            "ATOM_WORKERS": "3",
            "ATOM_PORT": "9001",
            "ATOM_API_PREFIX": "/atom",
            "ATOM_TITLE": "Teas",
            "DOCS_SWITCH": "False",
            "PROFILING": "no",
            "SW_SWITCH": "TRUE",
            "SW_AGENT_NAME": "teas",
            "LOG_DIR": "teas",
            "LOG_BACKUP_COUNT": "5",
            "META": json.dumps(META),
        }
    )
    assert (settings.atom_workers, settings.atom_port, settings.atom_title) == (3, 9001, "Teas")
    assert (settings.docs_switch, settings.profiling) == (False, False)
    assert (settings.sw_config.sw_switch, settings.sw_config.sw_agent_name) == (True, "teas")
    assert (settings.log_config.log_dir, settings.log_config.log_backup_count) == ("teas", 5)
    assert settings.model_id_list == ["one", "two", "three"]
    assert settings.healthcheck_url == "/own/ping"
    serving = settings.serving_config
    assert serving.serving_domain == "http://serving.example:0"
    assert serving.atom_uri == "http://name.space:8000/atom/process/2"
    assert serving.ability_depend_atom_codes == ["x", "y"]


def test_without_an_environment_settings_are_the_documented_defaults() -> None:
    settings = read_settings({"ATOM_API_PREFIX": "/atom", "DOCS_SWITCH": "", "META": ""})
    fresh = settings.sw_config.sw_agent_instance_name
    assert (len(fresh), settings.sw_config.sw_agent_log_reporter_active) == (32, True)
    assert settings.healthcheck_url == "/atom/v1/health/ping"
    assert settings.model_id_list == []
    assert settings.model_copy(update={"sw_config": Settings().sw_config}) == Settings(
        atom_api_prefix="/atom"
    )


def test_the_control_plane_runs_on_the_node_unless_meta_says_where() -> None:
    settings = read_settings({"META": '{"servingHost": ""}', "HOST_NODE_NAME": "node-7"})
    assert settings.serving_config.serving_domain == "http://node-7:80"
    assert read_settings({"META": '{"k8sHealthcheckUrl": ""}'}).healthcheck_url == (
        "/v1/health/ping"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"META": f'{{"servingPort": "{SECRET}"}}'},
        {"META": "{"},
        {"ATOM_WORKERS": "0"},
        {"ATOM_PORT": "eighty"},
        {"ATOM_PORT": "65536"},
        {"DOCS_SWITCH": "maybe"},
    ],
    ids=str,
)
def test_a_wrong_variable_is_one_line_that_names_it(wrong: dict[str, str]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name) as caught:
        read_settings(wrong)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_wrong_telemetry_stops_nothing() -> None:
    settings = read_settings({"SW_SWITCH": "maybe", "LOG_BACKUP_COUNT": "many"})
    assert not settings.sw_config.sw_switch
    assert settings.log_config.log_backup_count == 30


def test_a_service_is_told_what_the_server_has_decided() -> None:
    decided = Decided(port=9000, api_processes=4, docs=False, linker=LinkerSettings(profiling=True))
    settings = read_settings(service_environment(decided))
    assert (settings.atom_port, settings.atom_workers) == (9000, 4)
    assert (settings.docs_switch, settings.profiling) == (False, True)
    assert not settings.profiling_on_request
    # Neither has a default of ours to take the place of one of the service's own.
    assert not {"ATOM_API_PREFIX", "ATOM_PORT"} & set(service_environment(Decided(port=0)))
    assert service_environment(Decided(prefix="/Teas"))["ATOM_API_PREFIX"] == "/Teas"


# What services use beside HTTP.


def test_one_request_is_profiled_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    profiles = Profiles()
    with (
        profiles.profiled(method="GET", path="/first"),
        profiles.profiled(method="GET", path="/second"),
    ):
        pass
    with profiles.profiled(method="GET", path="/third"):
        pass
    told = capsys.readouterr().out
    assert [path in told for path in ("/first", "/second", "/third")] == [True, False, True]


def test_without_pyinstrument_profiling_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    with pytest.raises(MissingExtra, match=r"atomserve\[profiling\]"):
        Profiles()


def test_the_texts_of_errors_are_the_known_ones() -> None:
    assert (SUCCESS, FAIL, len(VQL_MESSAGE_MAP)) == (200, 1, 28)
    assert VqlError(512).detail == "算子错误：显存不足"
    assert VqlError(512, "").detail == ""


def test_responses_have_the_known_defaults() -> None:
    def dumped(model: type[pydantic.BaseModel]) -> dict[str, Any]:
        return model().model_dump()

    assert dumped(response.SuccessResponse) == {"code": 0, "msg": "Success", "data": {}}
    assert dumped(response.FailureResponse) == {"code": 1, "msg": "Failed", "data": {}}
    codes = {
        response.ExternalInvokeErrorResponse: (400, "External Invoke Error"),
        response.RequestNotFoundErrorResponse: (404, "NOT FOUND"),
        response.RequestValidErrorResponse: (422, "Request Entity Error"),
        response.InternalErrorResponse: (500, "Internal Server Error"),
    }
    for model, (code, text) in codes.items():
        assert (dumped(model)["code"], dumped(model)["msg"]) == (code, text)
    box = response.Object(xmin=0, ymin=0, xmax=1, ymax=1, conf=0.5, label="a")
    found = response.DetectionRes(took=3, objects=[[box]]).model_dump()
    assert list(found) == ["code", "msg", "description", "kwargs", "took", "objects"]


def test_a_caught_call_gives_its_default_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    @catch_exc(calc_time=True, default_data=[])
    def fails() -> list[int]:
        raise ValueError("for a reason")

    @catch_exc()
    async def fails_later() -> int:
        raise ValueError("for another")

    @catch_exc()
    def works() -> int:
        return 1

    assert (fails(), asyncio.run(fails_later()), works()) == ([], None, 1)
    assert fails.__name__ == "fails"
    assert "for a reason" in caplog.text
    assert "for another" in caplog.text
    assert "fails duration" in caplog.text


def test_a_call_is_timed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    @record_duration
    def now() -> int:
        return 1

    @record_duration
    async def later() -> int:
        return 2

    assert (now(), asyncio.run(later())) == (1, 2)
    assert "now duration: " in caplog.text
    assert "later duration: " in caplog.text


def test_long_values_are_cut_and_lists_are_not() -> None:
    value = {"a": ["x" * 300] * 20, "b": b"y" * 50, "c": 1}
    assert format_long_val(value) == {"a": ["x" * 200] * 20, "b": b"y" * 20, "c": 1}


def test_a_cache_keeps_what_was_used_last() -> None:
    cache = LRUCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.has("a"), cache.has("b"), cache.get("b")) == (True, False, None)
    cache.pop("a")
    cache.pop("nothing")
    assert not cache.has("a")


def test_tables_are_logged_cut(caplog: pytest.LogCaptureFixture) -> None:
    logger.warning({"text": "x" * 300, "password": SECRET})
    logger.warning("plain %s", "x" * 300)
    table, plain = (each.getMessage() for each in caplog.records)
    assert (table.count("x") - 1, SECRET in table) == (200, False)
    assert plain.count("x") == 300


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"token": "%s", "n": 1}' % SECRET.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"plain")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def other() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_calls_of_others_are_logged_on_both_sides(
    other: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger.name)
    assert requests.get(other, headers={"Authorization": SECRET}).json()["n"] == 1
    assert requests.post(other, json={"text": "x" * 300}).text == "plain"
    ours = [each.getMessage() for each in caplog.records if each.name == logger.name]
    asked, got, asked_more, got_more = ours
    assert "'timeout': 30" in asked
    assert "'n': 1" in got
    assert "'timeout': 30" in asked_more
    assert "'size': 5" in got_more
    assert not any(SECRET in line or "x" * 201 in line for line in ours)


def test_a_call_that_fails_says_so_and_raises(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger.name)
    with pytest.raises(requests.requests.ConnectionError):
        requests.request("http://127.0.0.1:9/", "get", timeout=1)
    assert "ConnectionError" in caplog.text


def test_the_protector_reads_sealed_models(tmp_path: Path) -> None:
    key = tmp_path / "model.key"
    key.write_bytes(bytes(range(32)))
    plain, model = tmp_path / "model.bin", tmp_path / "model.bin.sealed"
    plain.write_bytes(b"weights")
    sealed.seal(plain, model, sealed.key_from_file(key))
    protector = ModelProtector(key)
    assert protector.read(model) == ModelProtector(bytes(range(32))).read(model) == b"weights"
    with protector.open(model) as file:
        file.seek(3)
        assert file.read(2) == b"gh"
    with pytest.raises(AttributeError, match="atomserve seal"):
        _ = protector.decrypt_model


def test_the_start_script_runs_the_server() -> None:
    plain = deploy.run_command({})
    assert plain[1:] == ["-m", "atomserve", "run", "--plugins", "linker:./server.py", *EVERYWHERE]
    chosen = deploy.run_command({"ATOMSERVE_HOST": "127.0.0.1", "ATOMSERVE_PLUGINS": "echo"})
    assert chosen[1:] == ["-m", "atomserve", "run"]
    assert deploy.run_command({"ATOM_PORT": "no"})[1:] == ["-m", "atomserve", "run"]


NAMES = """
from atomserve.compat.linker_atom.finder import install

install()
import os

os.environ["ATOM_API_PREFIX"] = "/set"

from linker_atom.api.app import get_app
from linker_atom.api.base import UdfAPIRoute
from linker_atom.api.schema.response import (
    DetectionRes, ExternalInvokeErrorResponse, FailureResponse, Heartbeat, InternalErrorResponse,
    Object, RequestNotFoundErrorResponse, RequestValidErrorResponse, SuccessResponse,
)
from linker_atom.config import settings
from linker_atom.dependency.model_protector import ModelProtector
from linker_atom.deploy import nginx_run
from linker_atom.lib.common import LRUCache, catch_exc, format_long_val, record_duration
from linker_atom.lib.exception import FAIL, SUCCESS, VQL_MESSAGE_MAP, VqlError
from linker_atom.lib.log import logger
from linker_atom.lib.requests import get, post, request
import atomserve.compat.linker_atom.shim.linker_atom.lib.exception as home
assert VqlError is home.VqlError
print(settings.atom_api_prefix, settings.model_id_list, logger.name)
"""


@pytest.mark.timeout(60)
def test_every_name_is_there_and_settings_are_read_when_first_imported(tmp_path: Path) -> None:
    environ = {"META": json.dumps(META), "LOG_DIR": "teas", "PYTHONPATH": str(ROOT)}
    told = subprocess.check_output(
        [sys.executable, "-c", NAMES], cwd=tmp_path, env=os.environ | environ, text=True
    )
    assert told == "/set ['one', 'two', 'three'] teas\n"
    assert not list(tmp_path.iterdir()), "something was written at import"


def test_the_names_are_those_of_the_release_that_is_named() -> None:
    from atomserve.compat.linker_atom.shim import linker_atom

    assert linker_atom.__version__ == "0.0.43"
