"""The native surface of a real server: every form of request and answer, and every refusal."""

import base64
import hashlib
import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import live
import msgspec
import numpy as np
import pytest
from atomserve_echo.samples import FILM, PICTURE, SOUND
from PIL import Image

JSON, MSGPACK, NPY = "application/json", "application/msgpack", "application/x-npy"
PROBLEM = "application/problem+json"

MODEL = '''
import time
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve import BadRequest, Tensor, Text, Wrapper, current


class Faulty(Wrapper):
    """Fail as asked."""

    def predict(self, how: Text) -> int:
        if how == "refuse":
            raise BadRequest("not this one")
        raise RuntimeError("a secret of /etc/shadow")


class Gate(Wrapper):
    """Hold its only slot."""

    queue_size = 1

    def predict(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


class Hasty(Wrapper):
    timeout = 0.2

    def predict(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


class Unloadable(Wrapper):
    def load(self, config: dict) -> None:
        raise OSError("no weights at /secret/place")

    def predict(self, x: int) -> int:
        return x


class Holes(Wrapper):
    """Answer with a NaN."""

    def predict(self) -> Annotated[NDArray[np.float32], Tensor("float32", (-1,))]:
        return np.array([1, np.nan], np.float32)


class Wrong(Wrapper):
    """Answer with another shape than promised."""

    def predict(self) -> Annotated[NDArray[np.float32], Tensor("float32", (3,))]:
        return np.zeros((2, 2), np.float32)


class Asks(Wrapper):
    """Say what it knows of its request."""

    def predict(self) -> dict[str, str]:
        context = current()
        kept = str((context.remaining or 0) <= 60)
        return {"id": context.request_id, "test": context.headers.get("x-test", ""), "kept": kept}
'''
NAMES = ("Faulty", "Gate", "Hasty", "Unloadable", "Holes", "Wrong", "Asks")
PLUGINS = ",".join([*live.ECHOES, *(f"./model.py:{name}" for name in NAMES)])
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    folder = tmp_path_factory.mktemp("native")
    (folder / "model.py").write_text(MODEL)
    toml = f'readiness = "any"\n[cors]\norigins = ["{PAGE}"]\n'
    with live.live(folder, "--plugins", PLUGINS, toml=toml) as running:
        running.await_line(lambda line: line.startswith("  unloadable: failed"))
        with running.client() as client:
            for name in (*live.ECHOES, *(name.lower() for name in NAMES if name != "Unloadable")):
                while client.get(f"/readyz/{name}").status_code != 200:
                    time.sleep(0.02)
        yield running


@pytest.fixture(scope="module")
def client(server: live.Live) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


def ask(
    client: httpx2.Client, model: str, body: bytes = b"", kind: str = "", **headers: str
) -> httpx2.Response:
    given = {"content-type": kind} if kind else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/v1/models/{model}/predict", content=body, headers=given)


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Check that ``answer`` is a problem of this kind, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert answer.headers["x-request-id"]
    found: dict[str, Any] = answer.json()
    assert found["type"] == f"urn:atomserve:problem:{code}"
    assert (found["code"], found["status"]) == (code, status)
    assert found["title"]
    assert found["detail"] == found["error"]
    return found


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def packed(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": array.shape, "data": array.tobytes()}


TENSOR = np.arange(6, dtype=np.float32).reshape(2, 3)
POINTS = np.arange(6, dtype=np.int64).reshape(2, 3)
PLAIN = {
    "text": "世界",
    "number": 0.5,
    "count": 3,
    "flag": True,
    "mode": "loud",
    "level": "high",
    "shape": {"name": "edge", "corners": [{"x": 1.0, "y": 2.0}]},
    "labels": [{"word": "cat", "score": 0.25}],
    "notes": {"a": "b"},
}
# Each model's inputs in their JSON and msgpack forms, and its answer in both.
FORMS: dict[str, tuple[Any, Any, Any, Any]] = {
    "echo": (PLAIN, PLAIN, PLAIN, PLAIN),
    "echo_async": ({"text": "hi"}, {"text": "hi"}, "hi", "hi"),
    "echo_text": ({"text": "世界"}, {"text": "世界"}, "世界", "世界"),
    "echo_tiny": ({"x": 1.5}, {"x": 1.5}, 1.5, 1.5),
    "echo_blob": (
        {"data": b64(b"\0\xff"), "times": 2},
        {"data": b"\0\xff", "times": 2},
        b64(b"\0\xff\0\xff"),
        b"\0\xff\0\xff",
    ),
    "echo_video": ({"video": b64(FILM)}, {"video": FILM}, b64(FILM), FILM),
    "echo_tensor": (
        {"tensor": TENSOR.tolist()},
        {"tensor": packed(TENSOR)},
        TENSOR.tolist(),
        packed(TENSOR),
    ),
    "echo_points": (
        {"points": POINTS.tolist()},
        {"points": packed(POINTS)},
        POINTS.tolist(),
        packed(POINTS),
    ),
}


@pytest.mark.parametrize("model", FORMS)
def test_json_and_msgpack_say_the_same_both_ways(client: httpx2.Client, model: str) -> None:
    text, binary, json_answer, msgpack_answer = FORMS[model]
    requests = ((json.dumps(text).encode(), JSON), (msgspec.msgpack.encode(binary), MSGPACK))
    for body, kind in requests:
        answer = ask(client, model, body, kind, accept=JSON)
        assert (answer.status_code, answer.headers["content-type"]) == (200, JSON), answer.text
        assert answer.json() == json_answer
        answer = ask(client, model, body, kind, accept=MSGPACK)
        assert answer.headers["content-type"] == MSGPACK
        assert list_of(msgspec.msgpack.decode(answer.content)) == list_of(msgpack_answer)


def list_of(value: Any) -> Any:
    """Return ``value`` with tuples as the lists that they are written as."""
    if isinstance(value, dict):
        return {key: list_of(item) for key, item in value.items()}
    return [list_of(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("model", "files", "data", "answer"),
    [
        ("echo_blob", {"data": b"\0\xff"}, {"times": "2"}, b"\0\xff\0\xff"),
        ("echo_video", {"video": ("a.mp4", FILM, "video/mp4")}, {}, FILM),
        ("echo_image", {"image": ("a.png", PICTURE, "image/png")}, {}, None),
        ("echo_audio", {"audio": ("a.wav", SOUND, "audio/wav")}, {}, None),
        ("echo_tensor", {"tensor": ("a.npy", npy(TENSOR), NPY)}, {}, npy(TENSOR)),
        ("echo_points", {"points": ("a.npy", npy(POINTS))}, {}, npy(POINTS)),
    ],
)
def test_a_form_is_taken_and_media_are_answered_as_themselves(
    client: httpx2.Client, model: str, files: Any, data: Any, answer: bytes | None
) -> None:
    found = client.post(f"/v1/models/{model}/predict", files=files, data=data)
    assert found.status_code == 200, found.text
    if answer is not None:
        assert found.content == answer
    (sent,) = files.values()
    raw = sent[1] if isinstance(sent, tuple) else sent
    again = client.post(f"/v1/models/{model}/predict", content=raw, params=data)
    if model in ("echo_tensor", "echo_points"):
        again = ask(client, model, raw, NPY)
    assert (again.status_code, again.content) == (200, found.content)
    assert again.headers["content-type"] == found.headers["content-type"]


def test_a_form_without_files_fills_plain_values(client: httpx2.Client) -> None:
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in PLAIN.items()
    }
    answer = client.post("/v1/models/echo/predict", files={k: (None, v) for k, v in fields.items()})
    assert (answer.status_code, answer.json()) == (200, PLAIN)


def test_a_picture_may_be_answered_in_another_format(client: httpx2.Client) -> None:
    for kind, name in (("image/jpeg", "JPEG"), ("image/webp", "WEBP"), ("image/png", "PNG")):
        answer = ask(client, "echo_image", PICTURE, accept=kind)
        assert answer.headers["content-type"] == kind
        assert Image.open(io.BytesIO(answer.content)).format == name
    turned = client.post("/v1/models/echo_image/predict?turns=1", content=PICTURE)
    assert Image.open(io.BytesIO(turned.content)).size == (2, 3)


def test_a_tensor_may_be_bare_numbers_of_a_shape(client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/models/echo_tensor/predict?shape=2,3",
        content=TENSOR.tobytes(),
        headers={"content-type": "application/octet-stream", "accept": NPY},
    )
    assert np.array_equal(np.load(io.BytesIO(answer.content)), TENSOR)


@pytest.mark.parametrize("http2", [False, True])
def test_20_megabytes_go_round_whole(server: live.Live, http2: bool) -> None:
    array = np.random.default_rng(1).random((5, 1_000_000), np.float32)
    with server.client(http1=not http2, http2=http2) as client:
        answer = ask(client, "echo_tensor", npy(array), NPY)
        assert (answer.status_code, answer.http_version) == (200, f"HTTP/{2 if http2 else 1.1}")
    found = np.load(io.BytesIO(answer.content))
    assert found.shape == array.shape
    assert hashlib.sha256(found).digest() == hashlib.sha256(array).digest()


# What is at fault with a request.

NESTED = b"[" * 100_000
BODIES = [
    ("echo_tiny", JSON, b'{"x": NaN}', 400, "bad_request"),
    ("echo_tiny", JSON, b'{"x": -Infinity}', 400, "bad_request"),
    ("echo_tiny", JSON, b'{"x": 1e999}', 400, "bad_request"),
    ("echo_tiny", JSON, b'{"x": ' + b"9" * 10_000 + b"}", 400, "bad_request"),
    ("echo", JSON, b'{"count": ' + b"9" * 10_000 + b"}", 400, "bad_request"),
    ("echo_points", JSON, b'{"points": [[' + b"9" * 30 + b", 1, 2]]}", 4, ""),
    ("echo_tiny", JSON, b'{"x": ' + NESTED, 400, "bad_request"),
    ("echo_tensor", JSON, b'{"tensor": ' + NESTED + b"]" * 100_000 + b"}", 400, "bad_request"),
    ("echo_tiny", JSON, NESTED + b"]" * 100_000, 400, "bad_request"),
    ("echo_tiny", JSON, b'{"a": ' * 100_000, 400, "bad_request"),
    ("echo_tiny", JSON, b'{"x": 1, "x": 2}', 400, "bad_request"),
    ("echo_tiny", JSON, b'{"x": 1, "\\u0078": 2}', 400, "bad_request"),
    ("echo_text", JSON, b'{"text": "\xff"}', 400, "bad_request"),
    ("echo_text", JSON, b'{"text": "\\ud800"}', 400, "bad_request"),
    ("echo_text", JSON, b'\xef\xbb\xbf{"text": "a"}', 400, "bad_request"),
    ("echo_text", JSON, '{"text": "a"}'.encode("utf-16"), 400, "bad_request"),
    ("echo_tiny", JSON, b"", 400, "bad_request"),
    ("echo_tiny", JSON, b'{"x": 1} {}', 400, "bad_request"),
    ("echo_tiny", JSON, b"[1]", 422, "invalid"),
    ("echo_tiny", JSON, b"{}", 422, "invalid"),
    ("echo_tiny", JSON, b'{"x": "1"}', 422, "invalid"),
    ("echo_tiny", JSON, b'{"x": 1, "y": 2}', 422, "invalid"),
    ("echo", JSON, b'{"count": 1001}', 422, "invalid"),
    ("echo", JSON, b'{"mode": "other"}', 422, "invalid"),
    ("echo_blob", JSON, b'{"data": "a"}', 422, "invalid"),
    ("echo_blob", JSON, b'{"data": "YQ=\\n="}', 422, "invalid"),
    ("echo_blob", JSON, b'{"data": "_-8="}', 422, "invalid"),
    ("echo_image", JSON, b'{"image": "YQ=="}', 422, "invalid"),
    ("echo_tensor", JSON, b'{"tensor": [[1, 2], [3]]}', 422, "invalid"),
    ("echo_tensor", JSON, b'{"tensor": [["a"]]}', 422, "invalid"),
    ("echo_points", JSON, b'{"points": [[1, 2]]}', 422, "invalid"),
    ("echo_points", JSON, b'{"points": [[1.5, 2, 3]]}', 422, "invalid"),
    ("echo_tiny", MSGPACK, b"\x81\xa1x" + b"\x91" * 100_000, 400, "bad_request"),
    ("echo_tiny", MSGPACK, b"\x81\xa1x", 400, "bad_request"),
    ("echo_tiny", MSGPACK, b"\xc1", 400, "bad_request"),
    ("echo_tiny", MSGPACK, b"\xdf\xff\xff\xff\xff", 400, "bad_request"),
    ("echo_text", MSGPACK, b"\x81\xa4text\xa1\xff", 400, "bad_request"),
    ("echo_tensor", MSGPACK, msgspec.msgpack.encode({"tensor": packed(POINTS)}), 422, "invalid"),
    (
        "echo_points",
        MSGPACK,
        msgspec.msgpack.encode({"points": packed(POINTS) | {"shape": [3, 3]}}),
        422,
        "invalid",
    ),
    (
        "echo_tensor",
        MSGPACK,
        msgspec.msgpack.encode({"tensor": packed(TENSOR) | {"shape": [2**62, 4]}}),
        422,
        "invalid",
    ),
    ("echo_tensor", NPY, npy(POINTS), 422, "invalid"),
    ("echo_points", NPY, npy(POINTS.reshape(3, 2)), 422, "invalid"),
    ("echo_tensor", NPY, npy(TENSOR)[:-1], 422, "invalid"),
    ("echo_tensor", NPY, b"\x93NUMPY\x01\x00\xff\xff", 422, "invalid"),
    ("echo_tensor", NPY, b"PK\x03\x04", 422, "invalid"),
    ("echo_image", "image/png", PICTURE[:40], 4, ""),
    ("echo_image", "", b"no picture", 415, "unsupported_media_type"),
    ("echo_audio", "audio/wav", SOUND[:20], 4, ""),
    ("echo_blob", "multipart/form-data", b"", 400, "bad_request"),
    ("echo_blob", "multipart/form-data; boundary=x", b"--x\r\n", 400, "bad_request"),
    (
        "echo_blob",
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\nabc',
        400,
        "bad_request",
    ),
    (
        "echo_blob",
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\nabc\r\n--x--\r\n',
        422,
        "invalid",
    ),
    ("echo_tiny", "multipart/form-data; boundary=" + "x" * 400, b"--x--", 400, "bad_request"),
    ("echo_tiny", "text/plain", b"1", 415, "unsupported_media_type"),
    ("echo_tiny", "application/json; charset=latin-1", b"{}", 415, "unsupported_media_type"),
    ("echo_tiny", "", b"{}", 415, "unsupported_media_type"),
    ("echo_image", "audio/wav", SOUND, 415, "unsupported_media_type"),
]


@pytest.mark.parametrize("case", BODIES, ids=range(len(BODIES)))
def test_a_body_at_fault_is_refused_with_its_reason(
    client: httpx2.Client, case: tuple[str, str, bytes, int, str]
) -> None:
    model, kind, body, status, code = case
    began = time.monotonic()
    answer = ask(client, model, body, kind)
    assert time.monotonic() - began < 5
    if not code:  # several statuses would do
        assert answer.status_code // 100 == status
        code, status = answer.json()["code"], answer.status_code
    problem = refused(answer, status, code)
    if status == 422:
        assert all(fault["path"].startswith("$") for fault in problem["errors"])
        assert problem["errors"]


def test_a_refusal_names_the_place_of_the_fault(client: httpx2.Client) -> None:
    body = json.dumps({"shape": {"name": "a", "corners": [{"x": 1}, {"x": "b"}]}}).encode()
    problem = refused(ask(client, "echo", body, JSON), 422, "invalid")
    (fault,) = problem["errors"]
    assert fault["path"] == "$.shape.corners[1].x"
    assert "float" in fault["message"]


@pytest.mark.parametrize(
    "query", ["times=x", "times=17", "nothing=1", "times=1&times=2", "times=%ff"]
)
def test_a_query_at_fault_is_refused(client: httpx2.Client, query: str) -> None:
    answer = client.post(f"/v1/models/echo_blob/predict?{query}", content=b"a")
    assert answer.status_code in (400, 422)
    refused(answer, answer.status_code, "bad_request" if answer.status_code == 400 else "invalid")


def test_an_encoded_body_is_refused(client: httpx2.Client) -> None:
    answer = ask(client, "echo_tiny", b"...", JSON, content_encoding="gzip")
    refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/html, image/*"])
def test_an_answer_in_no_form_that_is_wanted_is_406(client: httpx2.Client, accept: str) -> None:
    refused(ask(client, "echo_tiny", b'{"x": 1}', JSON, accept=accept), 406, "not_acceptable")
    refused(ask(client, "echo_stream", b'{"text": ""}', JSON, accept=accept), 406, "not_acceptable")


def test_a_large_body_whose_answer_has_no_wanted_form_is_not_kept(client: httpx2.Client) -> None:
    body = json.dumps({"text": "x" * 200_000}).encode()
    for model in ("echo_stream", "echo_text"):
        refused(ask(client, model, body, JSON, accept="image/png"), 406, "not_acceptable")
        assert client.get(f"/v1/models/{model}").json()["arena_bytes"] == 0


def test_nan_in_an_answer_has_no_json_form(client: httpx2.Client) -> None:
    problem = refused(ask(client, "holes", b"{}", JSON, accept=JSON), 406, "not_acceptable")
    assert "msgpack" in problem["detail"]
    answer = ask(client, "holes", b"{}", JSON)
    assert np.isnan(np.load(io.BytesIO(answer.content))[1])


# Where and how it is asked.


@pytest.mark.parametrize(
    "case",
    [
        ("GET", "/nothing", 404, "not_found", None),
        ("GET", "/v1/models/", 404, "not_found", None),
        ("GET", "/v1/models/nobody", 404, "model_not_found", None),
        ("POST", "/v1/models/nobody/predict", 404, "model_not_found", None),
        ("GET", "/v1/models/nobody/session", 404, "model_not_found", None),
        ("POST", "/v1/models/%2e%2e/predict", 404, "model_not_found", None),
        ("GET", "/readyz/nobody", 404, "model_not_found", None),
        ("GET", "/v1/models/echo/predict", 405, "method_not_allowed", "POST"),
        ("DELETE", "/v1/models/echo/predict", 405, "method_not_allowed", "POST"),
        ("OPTIONS", "/v1/models/echo/predict", 405, "method_not_allowed", "POST"),
        ("TRACE", "/v1/models/echo/predict", 405, "method_not_allowed", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/v1/models", 405, "method_not_allowed", "GET, HEAD"),
        ("PUT", "/readyz", 405, "method_not_allowed", "GET, HEAD"),
        ("POST", "/v1/models/echo_session/session", 405, "method_not_allowed", "GET"),
        ("GET", "/v1/models/echo_session/session", 400, "bad_request", None),
        ("POST", "/v1/models/echo_session/predict", 400, "bad_request", None),
    ],
)
def test_a_path_or_method_that_is_not_served_is_refused(
    client: httpx2.Client, case: tuple[str, str, int, str, str | None]
) -> None:
    method, path, status, code, allow = case
    answer = client.request(method, path)
    refused(answer, status, code)
    found = answer.headers.get("allow")
    assert (found and ", ".join(sorted(found.split(", ")))) == allow


def test_head_is_get_without_a_body(client: httpx2.Client) -> None:
    for path in ("/v1/models", "/v1/models/echo", "/openapi.json", "/docs", "/livez"):
        head, whole = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))


def test_models_are_listed_and_described(client: httpx2.Client) -> None:
    models = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert models["echo"]["state"] == "ready"
    assert models["unloadable"]["state"] == "failed"
    found = client.get("/v1/models/echo_blob").json()
    assert found["queue"] == {"waiting": 0, "size": 32}
    assert found["capacity"] == 1
    (slot,) = found["slots"]
    assert (slot["slot"], slot["state"], slot["busy"]) == (0, "ready", 0)
    assert [field["name"] for field in found["signature"]["inputs"]] == ["data", "times"]


# What the server or the model is at fault with.


def test_a_failing_model_tells_an_id_and_the_log_the_cause(
    server: live.Live, client: httpx2.Client
) -> None:
    answer = ask(client, "faulty", b'{"how": "fail"}', JSON)
    problem = refused(answer, 500, "plugin_failed")
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    error_id = problem["instance"].rpartition(":")[2]
    record = server.await_record("plugin.failed", error_id=error_id)
    assert "a secret of /etc/shadow" in record["exception"]
    assert record["model"] == "faulty"


def test_a_wrong_answer_is_the_models_failure(client: httpx2.Client) -> None:
    refused(ask(client, "wrong", b"{}", JSON), 500, "bad_answer")


def test_a_models_own_refusal_is_400_with_its_message(client: httpx2.Client) -> None:
    problem = refused(ask(client, "faulty", b'{"how": "refuse"}', JSON), 400, "bad_request")
    assert problem["detail"] == "not this one"


def test_a_full_lane_is_429_at_once_and_says_when_to_come_back(
    server: live.Live, client: httpx2.Client
) -> None:
    body = b'{"seconds": 1}'
    with ThreadPoolExecutor(2) as pool, server.client() as others:
        held = [pool.submit(ask, others, "gate", body, JSON) for _ in range(2)]
        while client.get("/v1/models/gate").json()["queue"]["waiting"] < 1:
            time.sleep(0.01)
        began = time.monotonic()
        answer = ask(client, "gate", body, JSON)
        assert time.monotonic() - began < 0.5
        refused(answer, 429, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert [each.result().status_code for each in held] == [200, 200]


def test_a_model_that_did_not_load_is_503(client: httpx2.Client) -> None:
    answer = ask(client, "unloadable", b'{"x": 1}', JSON)
    refused(answer, 503, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1
    assert "secret" not in answer.text


def test_an_answer_that_is_late_is_504(client: httpx2.Client) -> None:
    began = time.monotonic()
    refused(ask(client, "hasty", b'{"seconds": 0.6}', JSON), 504, "deadline_exceeded")
    assert 0.15 < time.monotonic() - began < 0.5


def test_a_client_may_wait_less_than_the_model_would(client: httpx2.Client) -> None:
    began = time.monotonic()
    answer = ask(client, "gate", b'{"seconds": 0.8}', JSON, request_timeout="0.2")
    refused(answer, 504, "deadline_exceeded")
    assert 0.15 < time.monotonic() - began < 0.6
    answer = ask(client, "echo_tiny", b'{"x": 1}', JSON, request_timeout="1e400")
    refused(answer, 400, "bad_request")
    assert ask(client, "asks", b"{}", JSON, request_timeout="600").json()["kept"] == "True"


# Limits.


def announce(server: live.Live, *fields: str) -> socket.socket:
    """Begin a request to echo_blob and send none of its body."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    lines = ("POST /v1/models/echo_blob/predict HTTP/1.1", "host: test", *fields, "", "")
    sock.sendall("\r\n".join(lines).encode())
    return sock


def test_a_body_over_64_mib_is_refused_before_it_is_sent(server: live.Live) -> None:
    with announce(server, f"content-length: {64 * 1024**2 + 1}") as sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    began = time.monotonic()
    with announce(server, f"content-length: {64 * 1024**2}") as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    assert time.monotonic() - began < 2


def test_a_body_that_grows_over_64_mib_is_refused_there(client: httpx2.Client) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(65):
            yield bytes(1024**2)

    answer = client.post("/v1/models/echo_blob/predict", content=body())
    refused(answer, 413, "too_large")


def test_headers_over_the_limit_are_431(client: httpx2.Client) -> None:
    answer = client.get("/livez", headers=[(f"x-{n}", "") for n in range(101)])
    refused(answer, 431, "headers_too_large")
    refused(client.get("/livez", headers={"x-long": "a" * 33_000}), 431, "headers_too_large")


# Ids, records, other origins, another prefix.


def test_a_sane_request_id_is_kept_and_any_other_replaced(client: httpx2.Client) -> None:
    answer = ask(client, "asks", b"{}", JSON, x_request_id="mine-1", x_test="seen")
    assert answer.headers["x-request-id"] == answer.json()["id"] == "mine-1"
    assert answer.json()["test"] == "seen"
    for strange in ("a b", "a" * 200, "ä"):
        headers = {"x-request-id": strange.encode("latin-1")}
        own = client.get("/livez", headers=headers).headers["x-request-id"]
        assert own != strange
        assert own.isascii()


def test_each_request_leaves_one_record(server: live.Live, client: httpx2.Client) -> None:
    ask(client, "echo_tiny", b'{"x": 1}', JSON, x_request_id="record-1")
    record = server.await_record("http.access", request_id="record-1")
    assert record.pop("timestamp").endswith("Z")
    assert 0 < record.pop("duration_ms") < 5000
    path = "/v1/models/echo_tiny/predict"
    assert record == {
        "event": "http.access",
        "level": "info",
        "request_id": "record-1",
        "method": "POST",
        "path": path,
        "route": path,
        "model": "echo_tiny",
        "status": 200,
        "bytes_in": 8,
        "bytes_out": 3,
        "client": "127.0.0.1",
        "http_version": "1.1",
    }
    ask(client, "echo_tiny", b"{", JSON, x_request_id="record-2")
    failed = server.await_record("http.access", request_id="record-2")
    assert (failed["status"], failed["code"]) == (400, "bad_request")
    assert len([r for r in server.records("http.access") if r["request_id"] == "record-1"]) == 1


def test_a_listed_page_may_call_and_read_failures_too(client: httpx2.Client) -> None:
    preflight = client.options(
        "/v1/models/echo_tiny/predict",
        headers={
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    for body, status in ((b'{"x": 1}', 200), (b'{"x": "a"}', 422)):
        answer = ask(client, "echo_tiny", body, JSON, origin=PAGE)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    strange = ask(client, "echo_tiny", b'{"x": 1}', JSON, origin="https://page.example.evil")
    assert "access-control-allow-origin" not in strange.headers
    assert "Origin" in strange.headers["vary"]


def test_a_page_can_read_that_its_body_is_too_large(server: live.Live) -> None:
    with announce(server, f"content-length: {2**40}", f"origin: {PAGE}") as sock:
        head = sock.recv(65536).lower()
    assert head.startswith(b"http/1.1 413 ")
    assert f"access-control-allow-origin: {PAGE}".encode() in head


def test_a_prefix_moves_every_route_but_the_probes(tmp_path: Path) -> None:
    arguments = ("--plugins", "echo_tiny", "--prefix", "/api/ai", "--no-access-log")
    with live.live(tmp_path, *arguments) as server, server.client() as client:
        answer = client.post("/api/ai/v1/models/echo_tiny/predict", json={"x": 1})
        assert answer.json() == 1.0
        for path in ("/api/ai/v1/models", "/api/ai/openapi.json", "/api/ai/docs", "/livez"):
            assert client.get(path).status_code == 200
        for path in ("/v1/models", "/openapi.json", "/docs", "/api/ai/livez"):
            refused(client.get(path), 404, "not_found")
        paths = client.get("/api/ai/openapi.json").json()["paths"]
        assert "/api/ai/v1/models/echo_tiny/predict" in paths
        assert not server.records("http.access")
