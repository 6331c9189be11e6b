"""AIGES wrappers of every generation behind a real server, asked natively and by Athena."""

import base64
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from socket import SHUT_RDWR
from typing import Any

import aiges_wrappers
import httpx2
import live
import pytest
from aiges_wrappers import MIDDLE, OLD
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TOML = """
[wrapper]
size = 3
[fc]
max = 24
"""
QUICK = """
[ws]
sessionTimeout = 3
"""
# The first test of all waits for a server with seven workers.
pytestmark = pytest.mark.timeout(60)
STREAMING = ("middle", "old", "new")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("aiges")
    names = list(aiges_wrappers.TEXTS)
    for name in names:
        aiges_wrappers.write(folder, name, toml=TOML if name == "middle" else "")
    aiges_wrappers.write(folder, "quick", text=MIDDLE.replace('"middle"', '"quick"'), toml=QUICK)
    aiges_wrappers.write(folder, "streamer", text=OLD.replace("def wrapperOnceExec", "def _"))
    plugins = ",".join(f"aiges:./{name}" for name in (*names, "quick", "streamer"))
    toml = """
drain_delay = 0
[limits]
body = "1MiB"
[models.later]
timeout = "2s"
[models.quick]
queue_size = 1
"""
    with live.live(folder, "--plugins", plugins, toml=toml) as running:
        running.await_ready(within=40)
        yield running


@pytest.fixture
def client(server: live.Live) -> Iterator[httpx2.Client]:
    with server.client() as found:
        yield found


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def envelope(text: str, *, status: int | None = None, **params: Any) -> dict[str, Any]:
    header: dict[str, Any] = {"app_id": "tests"}
    block: dict[str, Any] = {"text": encoded(text)}
    if status is not None:
        header["status"] = block["status"] = status
    return {"header": header, "parameter": {"svc": params}, "payload": {"text": block}}


def ask(client: httpx2.Client, text: str, *, model: str = "middle", **params: Any) -> Any:
    return client.post(f"/v1/private/{model}", json=envelope(text, **params))


def told(answer: Any) -> str:
    return str(answer.json()["payload"]["result"]["text"])


def open_socket(server: live.Live, model: str = "middle", query: str = "") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/v1/private/{model}{query}", open_timeout=10)


def say(socket: ClientConnection, text: str, status: int, **params: Any) -> None:
    socket.send(json.dumps(envelope(text, status=status, **params)))


def hear(socket: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(socket.recv(timeout=10))
    return found


def destroyed(server: live.Live, sid: str, *, times: int = 1) -> None:
    """Wait for the session's end, and see that it was destroyed ``times``."""
    server.await_line(lambda line: "destroyed" in line and sid in line)
    lines = [line for line in server.logged if "destroyed" in line and sid in line]
    assert len(lines) == times


def tally(client: httpx2.Client) -> dict[str, int]:
    found: dict[str, int] = json.loads(told(ask(client, "tally")))
    return found


def none_open(client: httpx2.Client, *, within: float = 10.0) -> dict[str, int]:
    """Wait until no session is open, and return what there was in all."""
    deadline = time.monotonic() + within
    while (found := tally(client))["open"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


# Single requests.


def test_an_answer_is_written_as_upstream_writes_it(client: httpx2.Client) -> None:
    answer = ask(client, "hello")
    document = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert UUID4.fullmatch(document["header"].pop("sid"))
    assert document == {
        "header": {"code": 0, "status": 3},
        "payload": {
            "result": {
                "encoding": "utf8",
                "compress": "raw",
                "format": "plain",
                "seq": "0",
                "status": "3",
                "text": "HELLO",
            }
        },
    }


@pytest.mark.parametrize(
    ("text", "code", "message", "user_code"),
    [
        ("code", 10909, "user error;code=7", 7),
        ("raise", 10909, "The model failed on this request;code=-1", -1),
        ("empty", 10106, "wrapper output data is nil ", None),
        ("none", 10106, "wrapperOnceExec returned None, not a Response", None),
    ],
)
def test_a_wrappers_failure_is_told_as_upstream_tells_it(
    client: httpx2.Client, text: str, code: int, message: str, user_code: int | None
) -> None:
    answer = ask(client, text)
    document = answer.json()
    assert UUID4.fullmatch(document["header"].pop("sid"))
    expected: dict[str, Any] = {"code": code, "message": message}
    if user_code is not None:
        expected["user_code"] = user_code
    assert document == {"header": expected, "payload": None}
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"header', 10000),
        (b'{"payload": 5}', 10000),
        (b'{"payload": {"text": {"text": "~"}}}', 10001),
        (b'{"payload": {"text": {"text": 5}}}', 10001),
    ],
)
def test_a_request_that_cannot_be_read_has_upstreams_codes(
    client: httpx2.Client, body: bytes, code: int
) -> None:
    answer = client.post("/v1/private/middle", content=body)
    assert answer.status_code == 500
    assert answer.json()["header"]["code"] == code
    assert answer.json()["payload"] is None


def test_what_the_guard_refuses_wears_the_same_dress(client: httpx2.Client) -> None:
    answer = client.post("/v1/private/middle", content=b" " * (2 << 20))
    assert answer.status_code == 500
    assert answer.json()["header"]["code"] == 10009
    answer = client.post("/v1/private/middle", headers={f"x-{n}": "y" for n in range(120)})
    assert answer.status_code == 500
    assert answer.json()["header"]["code"] == 10000


def test_a_handshake_that_the_guard_refuses_wears_the_same_dress(server: live.Live) -> None:
    fields = {f"x-{n}": "y" for n in range(120)}
    url = f"ws://127.0.0.1:{server.port}/v1/private/middle"
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=fields):
        pass
    assert refused.value.response.status_code == 500
    found = json.loads(refused.value.response.body or b"")
    assert found["header"]["code"] == 10000
    assert found["payload"] is None


def test_a_service_that_is_not_there_is_told_to_its_clients(
    server: live.Live, client: httpx2.Client
) -> None:
    answer = client.post("/v1/private/nobody", json=envelope("x"))
    assert answer.status_code == 404
    assert answer.json()["header"]["code"] == 10404
    with pytest.raises(InvalidStatus) as refused, open_socket(server, "nobody"):
        pass
    assert json.loads(refused.value.response.body or b"")["header"]["code"] == 10404


def test_another_method_is_refused_in_the_same_dress(client: httpx2.Client) -> None:
    answer = client.get("/v1/private/middle")
    assert answer.status_code == 500
    assert answer.json()["header"]["code"] == 10000


def test_parameters_are_text_whatever_the_client_sends(client: httpx2.Client) -> None:
    found = json.loads(told(ask(client, "params", speed=5, ratio=0.5, on=True, word="x")))
    assert UUID4.fullmatch(found.pop("sid"))
    expected = {"speed": "5", "ratio": "0.5", "on": "true", "word": "x"}
    assert found == {**expected, "types": ["str"], "tag": True}


def test_the_wrapper_gets_its_configuration_as_text(client: httpx2.Client) -> None:
    assert json.loads(told(ask(client, "config"))) == {"size": "3"}


def test_figures_that_the_wrapper_calls_back_are_counted_and_logged(
    server: live.Live, client: httpx2.Client
) -> None:
    answer = client.post(
        "/v1/private/middle", json=envelope("count"), headers={"X-Request-ID": "my-own"}
    )
    sid = answer.json()["header"]["sid"]
    facts = {"sid": sid, "request_id": "my-own"}
    server.await_record("plugin.metric", key="tokens", count=3, **facts)
    server.await_record("plugin.trace", key="stage", value="counted", **facts)
    series = 'atomserve_wrapper_counts_total{model="middle",key="tokens"} 3'
    assert series in client.get("/metrics").text.splitlines()


@pytest.mark.parametrize("model", ["middle", "old", "new", "later"])
def test_every_generation_answers_and_refuses(client: httpx2.Client, model: str) -> None:
    assert told(ask(client, "hello", model=model)) == "HELLO"
    document = ask(client, "code", model=model).json()
    assert document["header"]["code"] == 10909
    assert document["header"]["user_code"] == 7


def test_an_error_that_is_called_back_has_its_own_code(client: httpx2.Client) -> None:
    header = ask(client, "error", model="later").json()["header"]
    assert (header["code"], header["user_code"]) == (10910, 5)


def test_a_result_that_is_called_back_in_pieces_is_whole(client: httpx2.Client) -> None:
    answer = ask(client, "words one by one", model="later")
    assert told(answer) == "WORDS ONE BY ONE "
    assert answer.json()["payload"]["result"]["status"] == "3"
    answer = client.post("/v1/models/later/predict", json={"payload": {"text": "words a b"}})
    assert answer.json() == {"result": "WORDS A B "}


def test_an_asynchronous_wrapper_is_heard_piece_by_piece_over_a_websocket(
    server: live.Live,
) -> None:
    with open_socket(server, "later") as socket:
        say(socket, "words one ", 0)
        assert hear(socket)["header"]["status"] == 0
        say(socket, "by one", 2)
        found = [hear(socket) for _ in range(4)]
        texts = [base64.b64decode(each["payload"]["result"]["text"]) for each in found]
        assert texts == [b"WORDS ", b"ONE ", b"BY ", b"ONE "]
        assert [each["header"]["status"] for each in found] == [0, 1, 1, 2]
        for text, code, user in (("code", 10909, 7), ("error", 10910, 5)):
            with open_socket(server, "later") as other:
                say(other, text, 3)
                assert hear(other)["header"]["code"] == 0
                header = hear(other)["header"]
                assert (header["code"], header["user_code"]) == (code, user)


def test_a_result_that_never_comes_is_a_timeout_and_frees_its_thread(
    client: httpx2.Client,
) -> None:
    answer = ask(client, "never", model="later")
    assert answer.status_code == 500
    assert answer.json()["header"]["code"] == 10102
    assert answer.json()["header"]["message"] == "service exec once request timeout"
    deadline = time.monotonic() + 10
    while ask(client, "hello", model="later").status_code != 200:
        assert time.monotonic() < deadline


def test_a_full_lane_is_upstreams_lack_of_licences(server: live.Live) -> None:
    with ThreadPoolExecutor(8) as pool, server.client() as client:
        answers = list(pool.map(lambda _: ask(client, "sleep", model="quick"), range(8)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    assert len(refused) < 8
    for answer in refused:
        assert answer.json()["header"]["code"] == 10110
        assert answer.json()["header"]["message"] == "service license not enough"
        assert int(answer.headers["retry-after"]) >= 1


def test_a_thousand_failures_leak_no_licence(client: httpx2.Client) -> None:
    for number in range(1000):
        text = ("code", "raise", "empty", "none")[number % 4]
        assert ask(client, text, model="quick").status_code == 500
    assert told(ask(client, "hello", model="quick")) == "HELLO"


def test_a_large_request_and_its_answer_pass_through_shared_memory(client: httpx2.Client) -> None:
    text = "large " * 60_000
    assert told(ask(client, text)) == text.upper()


# The native surface.


def test_the_fields_are_the_inputs_of_the_native_surface(client: httpx2.Client) -> None:
    answer = client.post("/v1/models/middle/predict", json={"text": "hello", "how": "upper"})
    assert answer.json() == {"result": "HELLO"}
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/models/middle/predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["how"]["enum"] == ["upper", "lower"]
    assert schema["properties"]["speed"]["maximum"] == 10


def test_a_native_failure_is_a_problem_with_the_users_code(client: httpx2.Client) -> None:
    answer = client.post("/v1/models/middle/predict", json={"text": "code"})
    assert answer.status_code == 500
    problem = answer.json()
    assert problem["code"] == "wrapper_refused"
    assert problem["errors"] == [{"path": "exec", "message": "7"}]


def test_the_documented_request_is_answered_as_documented(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    item = document["paths"]["/v1/private/middle"]
    assert item["get"]["responses"].keys() >= {"101", "500"}
    body = item["post"]["requestBody"]["content"]["application/json"]
    example = body["examples"]["example"]["value"]
    answer = client.post("/v1/private/middle", json=example)
    assert told(answer) == "HELLO"
    failed = client.post("/v1/private/middle", json=envelope("code"))
    for said, schema in (
        (example, body["schema"]),
        (answer.json(), documented(item["post"], "200")),
        (failed.json(), documented(item["post"], "500")),
    ):
        Draft202012Validator({**schema, "components": document["components"]}).validate(said)


def documented(operation: Any, status: str) -> dict[str, Any]:
    schema: dict[str, Any] = operation["responses"][status]["content"]["application/json"]["schema"]
    return schema


def test_a_wrapper_without_fields_takes_any_payload(client: httpx2.Client) -> None:
    body = {"payload": {"anything": "hello"}, "parameter": {"x": 1}}
    answer = client.post("/v1/models/new/predict", json=body)
    assert answer.json() == {"result": "HELLO"}
    block = {"payload": {"anything": {"image": encoded("hello")}}}
    assert client.post("/v1/models/new/predict", json=block).json() == {"result": "HELLO"}


def test_a_stream_wrapper_is_a_stream_of_events_natively(client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/models/streamer/predict",
        json={"payload": {"text": "hello"}},
        headers={"Accept": "application/x-ndjson"},
    )
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [{"data": {"result": "HELLO"}}, {"end": True}]


def test_a_native_session_ends_where_its_client_says_so(server: live.Live) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/models/middle/session"
    with connect(url, open_timeout=10) as socket:
        socket.send(json.dumps({"data": {"text": "one"}}))
        assert hear(socket) == {"data": {"result": "ONE"}}
        socket.send(json.dumps({"data": {"text": "two", "status": 2}}))
        assert hear(socket) == {"data": {"result": "TWO"}}
        assert hear(socket) == {"end": True}


# Sessions.


@pytest.mark.parametrize("model", STREAMING)
def test_a_stream_is_acknowledged_ordered_and_destroyed_once(server: live.Live, model: str) -> None:
    with open_socket(server, model) as socket:
        say(socket, "a", 0)
        ack = hear(socket)
        sid = ack["header"]["sid"]
        assert re.fullmatch("[0-9a-f]{32}", sid)
        header = {"code": 0, "message": "success", "sid": sid, "status": 0}
        assert ack == {"header": header}
        for number, (text, status) in enumerate((("a", 0), ("b", 1), ("c", 2))):
            if number:
                say(socket, text, status)
            found = hear(socket)
            assert found["header"] == {**header, "status": status}
            block = found["payload"]["result"]
            assert base64.b64decode(block["text"]) == text.upper().encode()
            assert (block["seq"], block["status"]) == (number, status)
        destroyed(server, sid)


@pytest.mark.parametrize("text", ["words", "words as text", "blank end"])
def test_a_result_may_tell_its_numbers_as_text_and_its_end_without_data(
    server: live.Live, text: str
) -> None:
    with open_socket(server) as socket:
        say(socket, text, 0)
        assert hear(socket)["header"]["status"] == 0
        found = hear(socket)
        while found["header"]["status"] != 2:
            found = hear(socket)
        assert found["header"]["code"] == 0


def test_a_result_whose_numbers_are_none_is_an_error_frame(server: live.Live) -> None:
    with open_socket(server) as socket:
        say(socket, "no number", 0)
        assert hear(socket)["header"]["status"] == 0
        failed = hear(socket)
        assert failed["header"]["code"] == 10106
        assert "the status is None" in failed["header"]["message"]
        destroyed(server, failed["header"]["sid"])


def test_one_write_may_call_back_very_often(server: live.Live) -> None:
    with open_socket(server) as socket:
        say(socket, "6000", 3)
        assert hear(socket)["header"]["status"] == 0
        found = [hear(socket) for _ in range(6001)]
        assert [each["payload"]["result"]["seq"] for each in found] == list(range(6001))
        assert found[-1]["header"]["status"] == 2


def test_a_single_frame_session_is_closed_by_the_server(server: live.Live) -> None:
    with open_socket(server) as socket:
        say(socket, "all", 3)
        sid = hear(socket)["header"]["sid"]
        assert hear(socket)["header"]["status"] == 3
        with pytest.raises(ConnectionClosed) as closed:
            hear(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    destroyed(server, sid)


def test_results_of_foreign_threads_find_their_session_by_its_handle(server: live.Live) -> None:
    with open_socket(server) as socket:
        say(socket, "thread 1", 0)
        hear(socket)
        first = hear(socket)["payload"]["result"]["text"]
        say(socket, "thread 2", 2)
        second = hear(socket)["payload"]["result"]["text"]
        assert [base64.b64decode(each) for each in (first, second)] == [b"THREAD 1", b"THREAD 2"]


def test_large_frames_pass_in_both_directions(server: live.Live) -> None:
    text = "large " * 60_000
    with connect(f"ws://127.0.0.1:{server.port}/v1/private/middle", max_size=None) as socket:
        for number in range(5):
            say(socket, text, 2 if number == 4 else min(number, 1))
        hear(socket)
        for _ in range(5):
            block = hear(socket)["payload"]["result"]
            assert base64.b64decode(block["text"]).decode() == text.upper()


def test_a_frame_over_the_limit_closes_the_socket_and_ends_its_session(
    server: live.Live,
) -> None:
    with open_socket(server) as socket:
        say(socket, "silent", 0)
        sid = hear(socket)["header"]["sid"]
        say(socket, "x" * (2 << 20), 1)
        with pytest.raises(ConnectionClosed) as closed:
            hear(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    destroyed(server, sid)


def test_what_a_file_holds_is_a_view_of_shared_memory(client: httpx2.Client) -> None:
    data = bytes(range(256)) * 1024
    answer = client.post("/v1/models/viewer/predict", files={"picture": data})
    assert answer.json() == {"result": f"memoryview {len(data)} bytes"}


def test_a_client_that_leaves_ends_its_session(server: live.Live) -> None:
    with open_socket(server) as socket:
        say(socket, "silent", 0)
        sid = hear(socket)["header"]["sid"]
    destroyed(server, sid)


def test_a_client_that_breaks_off_ends_its_session(server: live.Live) -> None:
    with open_socket(server) as socket:
        say(socket, "silent", 0)
        sid = hear(socket)["header"]["sid"]
        socket.socket.shutdown(SHUT_RDWR)
    destroyed(server, sid)


@pytest.mark.parametrize(
    ("text", "code", "message", "user_code"),
    [
        ("raise", 10907, "The model failed on this request;code=-1", -1),
        ("code", 10907, "no write;code=9", 9),
        ("error", 10910, "no result;code=5", 5),
    ],
)
def test_a_failing_session_is_told_closed_and_destroyed_once(
    server: live.Live, text: str, code: int, message: str, user_code: int
) -> None:
    with open_socket(server) as socket:
        say(socket, "silent", 0)
        sid = hear(socket)["header"]["sid"]
        say(socket, text, 1)
        assert hear(socket)["header"] == {
            "code": code,
            "message": message,
            "sid": sid,
            "status": 0,
            "user_code": user_code,
        }
        with pytest.raises(ConnectionClosed):
            hear(socket)
    destroyed(server, sid)


@pytest.mark.parametrize(("how", "user_code"), [("refuse", 3), ("raise", -1)])
def test_a_session_that_is_not_created_is_refused_and_not_destroyed(
    server: live.Live, client: httpx2.Client, how: str, user_code: int
) -> None:
    with open_socket(server) as socket:
        say(socket, "a", 0, how=how)
        header = hear(socket)["header"]
        assert (header["code"], header["user_code"]) == (10905, user_code)
        with pytest.raises(ConnectionClosed):
            hear(socket)
    assert none_open(client)["twice"] == 0
    assert not [line for line in server.logged if header["sid"] in line and "destroyed" in line]


def test_a_session_that_takes_too_long_is_ended_and_destroyed_once(server: live.Live) -> None:
    with open_socket(server, "quick") as socket:
        say(socket, "silent", 0)
        sid = hear(socket)["header"]["sid"]
        with pytest.raises(ConnectionClosed):
            while True:
                assert hear(socket)["header"]["code"] == 10114
    destroyed(server, sid)


def test_several_sessions_share_a_socket_by_their_cid(server: live.Live) -> None:
    with open_socket(server, query="?stream_mode=multiplex") as socket:
        for cid in ("x", "y"):
            frame = envelope(f"from {cid}", status=0)
            frame["header"]["cid"] = cid
            socket.send(json.dumps(frame))
        found = [hear(socket) for _ in range(4)]
        texts = {
            each["header"]["cid"]: base64.b64decode(each["payload"]["result"]["text"])
            for each in found
            if "payload" in each
        }
        assert texts == {"x": b"FROM X", "y": b"FROM Y"}


def test_a_model_without_sessions_refuses_the_handshake(server: live.Live) -> None:
    with pytest.raises(InvalidStatus) as refused, open_socket(server, "viewer"):
        pass
    body = json.loads(refused.value.response.body or b"{}")
    assert body["header"]["code"] == 10000


def talk(server: live.Live, number: int) -> None:
    """Hold one session, and end it in one of many ways."""
    with open_socket(server) as socket:
        say(socket, "a", 0)
        assert hear(socket)["header"]["code"] == 0
        match number % 5:
            case 0:
                hear(socket)
                say(socket, "b", 2)
                assert hear(socket)["header"]["status"] == 2
            case 1:
                hear(socket)
                say(socket, "raise", 1)
                assert hear(socket)["header"]["code"] == 10907
            case 2:
                hear(socket)
                say(socket, "error", 1)
                assert hear(socket)["header"]["code"] == 10910
            case 3:
                socket.socket.shutdown(SHUT_RDWR)


def hold(server: live.Live, client: httpx2.Client, sessions: int) -> None:
    before = none_open(client)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: talk(server, number), range(sessions)))
    after = none_open(client)
    assert after["created"] - before["created"] == sessions
    assert after["destroyed"] - before["destroyed"] == sessions
    assert after["twice"] == 0


def test_of_two_hundred_sessions_none_is_left(server: live.Live, client: httpx2.Client) -> None:
    hold(server, client, 200)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_ten_thousand_sessions_none_is_left(server: live.Live, client: httpx2.Client) -> None:
    hold(server, client, 10_000)
