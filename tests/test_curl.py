"""curl gets the same answer over HTTP/1.1, over HTTP/2 by prior knowledge, and over TLS."""

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import msgspec
import numpy as np
import pytest
from atomserve_echo.samples import FILM, PICTURE, SOUND

pytestmark = pytest.mark.debian("curl")

TENSOR = np.arange(6, dtype=np.float32).reshape(2, 3)
FILES = {"picture.png": PICTURE, "sound.wav": SOUND, "film.mp4": FILM, "some.bin": b"\0\xff\r\n"}
JSON = ("-H", "Content-Type: application/json")
MSGPACK = ("-H", "Content-Type: application/msgpack")


class Servers:
    """One server without TLS and one with it; ``folder`` holds what is sent."""

    def __init__(self, folder: Path, plain: str, secure: str, certificate: str) -> None:
        self.folder = folder
        self.ways = (
            ("1.1", plain, ("--http1.1",)),
            ("2", plain, ("--http2-prior-knowledge",)),
            ("2", secure, ("--http2", "--cacert", certificate)),
        )

    def same(self, model: str, *arguments: str, query: str = "") -> tuple[str, bytes]:
        """Ask all three ways, and return content type and body, which are the same."""
        answers = []
        for version, url, flags in self.ways:
            given = ("-sS", "-m", "15", "-o", "answer", "-w", "%{http_version} %{json}")
            address = f"{url}/v1/models/{model}/predict{query}"
            done = subprocess.run(
                ["curl", *given, *flags, *arguments, address],
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
            body = (self.folder / "answer").read_bytes()
            assert done.returncode == 0, done.stderr
            told, _, facts = done.stdout.partition(" ")
            found = json.loads(facts)
            assert (told, found["http_code"]) == (version, 200), body
            answers.append((found["content_type"], body))
        assert answers[0] == answers[1] == answers[2]
        return answers[0]


def serving(folder: Path, plugins: str) -> Iterator[Servers]:
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    chain, key = live.certificate(folder)
    tls = ("--certfile", chain, "--keyfile", key)
    with (
        live.live(folder, "--plugins", plugins) as plain,
        live.live(folder, "--plugins", plugins, *tls) as secure,
    ):
        yield Servers(folder, plain.url, secure.url, chain)


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    yield from serving(tmp_path_factory.mktemp("curl"), ",".join(live.ECHOES))


def document(servers: Servers, name: str, data: bytes) -> str:
    (servers.folder / name).write_bytes(data)
    return f"@{name}"


def text(data: bytes) -> str:
    return b64encode(data).decode()


@pytest.mark.parametrize(
    ("model", "inputs", "answer"),
    [
        ("echo", {"text": "世界", "count": 3}, None),
        ("echo_tiny", {"x": 1.5}, b"1.5"),
        ("echo_text", {"text": "hi"}, b'"hi"'),
        ("echo_blob", {"data": text(b"ab"), "times": 2}, b"abab"),
        ("echo_image", {"image": text(PICTURE)}, None),
        ("echo_audio", {"audio": text(SOUND)}, None),
        ("echo_tensor", {"tensor": TENSOR.tolist()}, None),
        ("echo_stream", {"text": "a", "count": 2}, None),
        ("echo_async", {"text": "a"}, b'"a"'),
    ],
)
def test_json(echo: Servers, model: str, inputs: Any, answer: bytes | None) -> None:
    _, body = echo.same(model, *JSON, "--data-binary", json.dumps(inputs))
    assert answer in (None, body)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("echo", {"text": "世界", "flag": True}),
        ("echo_blob", {"data": b"\0\xff"}),
        ("echo_image", {"image": PICTURE, "turns": 1}),
        ("echo_video", {"video": FILM}),
        ("echo_tensor", {"tensor": {"dtype": "float32", "shape": (2, 3), "data": bytes(24)}}),
    ],
)
def test_msgpack(echo: Servers, model: str, inputs: Any) -> None:
    sent = document(echo, "request", msgspec.msgpack.encode(inputs))
    wanted = ("-H", "Accept: application/msgpack")
    kind, _ = echo.same(model, *MSGPACK, *wanted, "--data-binary", sent)
    assert kind == "application/msgpack"


@pytest.mark.parametrize(
    ("model", "fields", "kind"),
    [
        ("echo", ("text=hi", "count=3", "flag=true"), "application/json"),
        ("echo_blob", ("data=@some.bin", "times=2"), "application/octet-stream"),
        ("echo_image", ("image=@picture.png", "turns=1"), "image/png"),
        ("echo_audio", ("audio=@sound.wav",), "audio/wav"),
        ("echo_video", ("video=@film.mp4",), "video/mp4"),
    ],
)
def test_multipart(echo: Servers, model: str, fields: tuple[str, ...], kind: str) -> None:
    found, _ = echo.same(model, *(part for field in fields for part in ("-F", field)))
    assert found == kind


@pytest.mark.parametrize(
    ("model", "file", "query"),
    [
        ("echo_blob", "some.bin", "?times=2"),
        ("echo_image", "picture.png", "?turns=2"),
        ("echo_audio", "sound.wav", ""),
        ("echo_video", "film.mp4", ""),
    ],
)
def test_a_raw_file_without_a_content_type(
    echo: Servers, model: str, file: str, query: str
) -> None:
    named = echo.same(model, "--data-binary", f"@{file}", query=query)
    assert named == echo.same(
        model, "-H", "Content-Type:", "--data-binary", f"@{file}", query=query
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ocr_reads_its_picture_in_every_form(tmp_path: Path) -> None:
    ocr = pytest.importorskip("atomserve_ocr")
    picture = ocr.EXAMPLE.read_bytes()
    for servers in serving(tmp_path, "ocr"):
        (tmp_path / "sign.jpg").write_bytes(picture)
        plain = document(servers, "request.json", json.dumps({"image": text(picture)}).encode())
        packed = document(servers, "request.msgpack", msgspec.msgpack.encode({"image": picture}))
        answers = [
            servers.same("ocr", *JSON, "--data-binary", plain),
            servers.same("ocr", *MSGPACK, "--data-binary", packed),
            servers.same("ocr", "-F", "image=@sign.jpg"),
            servers.same("ocr", "--data-binary", "@sign.jpg"),
        ]
        assert all(answer == answers[0] for answer in answers)
        assert "ATOM TEA HOUSE" in json.loads(answers[0][1])["text"]
