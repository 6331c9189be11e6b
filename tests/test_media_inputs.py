"""Inputs that name their media instead of holding them, in every form of request."""

import asyncio
import io
import random
import socket
import struct
import subprocess
import sys
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from contracts import form_body, png
from live import live
from origins import Origin, origin, whole
from PIL import Image as Pillow
from structlog.testing import capture_logs

from atomserve import Audio, AudioClip, Blob, Image, Text, Video, Wrapper
from atomserve.backends.runner import Runner
from atomserve.codecs.athena.service import Service
from atomserve.codecs.codec import Codec
from atomserve.codecs.pictures import decode_picture, encode_picture
from atomserve.codecs.pixels import Pixels
from atomserve.codecs.sounds import encode_sound
from atomserve.compat.aiges.asked import Reader
from atomserve.compat.aiges.contract import describe
from atomserve.compat.aiges.declared import declared
from atomserve.compat.aiges.parameters import Parameters
from atomserve.compat.aiges.shim.aiges.sdk import ImageBodyField
from atomserve.configuration.conflicts import conflicts
from atomserve.engine.jobs import Payload
from atomserve.errors import AtomError, Invalid, SourceFailed, SourceRefused, TooLarge
from atomserve.media.sources import Sources
from atomserve.settings import MediaSettings, Settings
from atomserve.signature import read_contract

CLIP = AudioClip(np.linspace(-0.5, 0.5, 50, dtype=np.float32).reshape(1, 50), 8000)


def color(value: int, kind: str = "PNG") -> bytes:
    return png(color=(value, 0, 0), kind=kind)


class Many(Wrapper):
    def predict(
        self,
        *,
        image: Image | None = None,
        images: list[Image] | None = None,
        pair: tuple[Image, ...] = (),
        audio: Audio | None = None,
        blob: Blob | None = None,
        blobs: list[Blob | None] | None = None,
        video: Video | None = None,
        nested: dict[str, Image] | None = None,
        text: Text = "",
    ) -> int:
        return 1


@pytest.fixture
def server() -> Iterator[Origin]:
    with origin() as found:
        for value in range(20):
            found.routes[f"/{value}"] = whole(color(value))
        found.routes["/sound"] = whole(bytes(encode_sound(CLIP)))
        found.routes["/page"] = whole(b"<html>")
        found.routes["/missing"] = whole(b"", status="404 Not Found")
        yield found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "picture").write_bytes(color(7))
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    (tmp_path / "raw").write_bytes(b"head" + pixels.tobytes())
    return tmp_path


@pytest.fixture
def allowed(root: Path) -> Codec:
    settings = MediaSettings(
        urls=True, allow_networks=("127.0.0.0/8",), roots=(str(root),), mmap=True
    )
    return Codec(read_contract(Many), Sources(settings))


def decoded(codec: Codec, **inputs: Any) -> dict[str, Any]:
    body = msgspec.json.encode(inputs)
    return dict(zip(codec.inputs, codec.decode(Payload(body=body)), strict=True))


def packed(codec: Codec, **inputs: Any) -> dict[str, Any]:
    payload = Payload(form="msgpack", body=msgspec.msgpack.encode(inputs))
    return dict(zip(codec.inputs, codec.decode(payload), strict=True))


def reds(images: Any) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


BOTH = pytest.mark.parametrize("read", [decoded, packed])


@BOTH
def test_a_picture_may_be_named(
    allowed: Codec, server: Origin, read: Callable[..., dict[str, Any]]
) -> None:
    assert reds([read(allowed, image={"url": server.url("/3")})["image"]]) == [3]
    assert reds([read(allowed, image={"path": "picture"})["image"]]) == [7]
    assert reds([read(allowed, image={"base64": b64encode(color(4)).decode()})["image"]]) == [4]
    image = read(allowed, image={"path": "picture"})["image"]
    assert image.shape == (3, 4, 3)
    assert not image.flags.writeable


@BOTH
def test_raw_pixels_are_turned_into_rgb(
    allowed: Codec, root: Path, read: Callable[..., dict[str, Any]]
) -> None:
    part = {"path": "raw", "position": 4, "size": 60, "height": 5, "width": 4}
    image = read(allowed, image={"mmap": part})["image"]
    expected = np.frombuffer((root / "raw").read_bytes()[4:], np.uint8).reshape(5, 4, 3)
    np.testing.assert_array_equal(image, expected[:, :, ::-1])
    assert image.flags.c_contiguous
    assert not image.flags.writeable


@BOTH
def test_a_part_without_a_size_in_pixels_is_a_file_within_a_file(
    allowed: Codec, root: Path, read: Callable[..., dict[str, Any]]
) -> None:
    (root / "pack").write_bytes(b"head" + color(9) + b"tail")
    part = {"path": "pack", "position": 4, "size": len(color(9))}
    assert reds([read(allowed, image={"mmap": part})["image"]]) == [9]
    assert read(allowed, blob={"mmap": {**part, "position": 0, "size": 4}})["blob"] == b"head"


@BOTH
def test_sounds_bytes_and_films_may_be_named(
    allowed: Codec, server: Origin, read: Callable[..., dict[str, Any]]
) -> None:
    found = read(
        allowed,
        audio={"url": server.url("/sound")},
        blob={"path": "picture"},
        video={"url": server.url("/page")},
    )
    np.testing.assert_allclose(found["audio"].samples, CLIP.samples, atol=1 / 32768)
    assert found["blob"] == color(7)
    assert isinstance(found["blob"], memoryview)
    assert found["video"].data == b"<html>"


@BOTH
def test_lists_keep_their_order_whatever_they_hold(
    allowed: Codec, server: Origin, read: Callable[..., dict[str, Any]]
) -> None:
    plain = b64encode(color(5)).decode() if read is decoded else color(5)
    images = [{"url": server.url("/2")}, plain, {"path": "picture"}, {"url": server.url("/1")}]
    found = read(allowed, images=images, pair=[plain, images[0]], blobs=[None, {"path": "picture"}])
    assert reds(found["images"]) == [2, 5, 7, 1]
    assert type(found["pair"]) is tuple
    assert reds(found["pair"]) == [5, 2]
    assert found["blobs"] == [None, color(7)]


def test_the_urls_of_a_list_are_fetched_at_once(allowed: Codec, server: Origin) -> None:
    together = Barrier(4)

    def when_all_have_asked(number: int) -> Callable[[socket.socket], None]:
        def act(sock: socket.socket) -> None:
            together.wait(10)
            whole(color(number))(sock)

        return act

    for number in range(4):
        server.routes[f"/{number}"] = when_all_have_asked(number)
    urls = [{"url": server.url(f"/{number}")} for number in (3, 1, 0, 2)]
    assert reds(decoded(allowed, images=urls)["images"]) == [3, 1, 0, 2]


def test_large_pictures_of_a_list_keep_their_order(allowed: Codec) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (20, 200, 200, 3), np.uint8)
    images = [b64encode(encode_picture(each)).decode() for each in noise]
    for found, expected in zip(decoded(allowed, images=images)["images"], noise, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_forms_files_keep_their_order(allowed: Codec) -> None:
    parts = [("images", color(n), "image/png", True) for n in (3, 1, 2)]
    named = b'{"path": "picture"}'
    payload = form_body(*parts, ("image", named, "application/json", False))
    found = dict(zip(allowed.inputs, allowed.decode(payload), strict=True))
    assert reds(found["images"]) == [3, 1, 2]
    assert reds([found["image"]]) == [7]


@pytest.mark.parametrize("form", ["url", "path", "mmap"])
@pytest.mark.parametrize("name", ["image", "audio", "blob", "video"])
def test_by_default_media_are_held_by_the_request(form: str, name: str, server: Origin) -> None:
    closed = Codec(read_contract(Many))
    with pytest.raises(SourceRefused, match=rf"^\$\.{name}: this server opens no {form} of") as e:
        decoded(closed, **{name: {form: server.url("/1")}})
    assert (e.value.status, e.value.errors[0].path) == (400, f"$.{name}")
    assert not server.heads


@BOTH
@pytest.mark.parametrize(
    ("inputs", "error", "path"),
    [
        ({"image": {"url": "PAGE"}}, Invalid, "$.image"),
        ({"image": {"url": "MISSING"}}, SourceFailed, "$.image"),
        ({"images": [{"url": "GOOD"}, {"url": "MISSING"}]}, SourceFailed, "$.images[1]"),
        ({"images": [{"url": "GOOD"}, {"url": "PAGE"}]}, Invalid, "$.images[1]"),
        ({"images": [{"path": "picture"}, {"path": "../x"}]}, SourceRefused, "$.images[1]"),
        ({"images": [{"path": "picture"}, {}]}, Invalid, "$.images[1]"),
        ({"image": {"url": "GOOD", "path": "x"}}, Invalid, "$.image"),
        ({"image": {"uri": "GOOD"}}, Invalid, "$.image"),
        ({"image": {"url": 3}}, Invalid, "$.image"),
        ({"image": {"url": None}}, Invalid, "$.image"),
        ({"image": {"base64": "!"}}, Invalid, "$.image"),
        ({"image": {"mmap": "raw"}}, Invalid, "$.image"),
        ({"image": {"mmap": {"path": "raw", "position": -1, "size": 1}}}, Invalid, "$.image"),
        ({"image": {"mmap": {"path": "raw", "position": 0, "size": 0}}}, Invalid, "$.image"),
        (
            {"image": {"mmap": {"path": "raw", "position": 0, "size": 1, "x": 1}}},
            Invalid,
            "$.image",
        ),
        ({"nested": {"a": {"url": "GOOD"}}}, Invalid, "$.nested[...]"),
    ],
)
def test_what_is_wrong_with_a_name_is_told_with_its_path(
    allowed: Codec,
    server: Origin,
    read: Callable[..., dict[str, Any]],
    *,
    inputs: dict[str, Any],
    error: type[AtomError],
    path: str,
) -> None:
    text = msgspec.json.encode(inputs).decode()
    for name, place in (("PAGE", "/page"), ("MISSING", "/missing"), ("GOOD", "/1")):
        text = text.replace(name, server.url(place))
    with pytest.raises(error) as caught:
        read(allowed, **msgspec.json.decode(text))
    assert caught.value.errors[0].path == path


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [
        (60, 5, 5),
        (59, 5, 4),
        (60, 5, None),
        (60, None, 4),
        (60, -5, -4),
        (60, 0, 4),
        (3 * 10**18, 10**9, 10**9),
        (3 * 2**64, 2**32, 2**32),
    ],
)
def test_s08_pixels_of_another_shape_are_refused(
    allowed: Codec, size: int, height: int | None, width: int | None
) -> None:
    part = {"path": "raw", "position": 4, "size": size, "height": height, "width": width}
    with pytest.raises((Invalid, TooLarge)):
        decoded(allowed, image={"mmap": part})


def test_pixels_are_no_bytes_of_another_medium(allowed: Codec) -> None:
    part = {"path": "raw", "position": 4, "size": 60, "height": 5, "width": 4}
    with pytest.raises(Invalid, match="only a picture has"):
        decoded(allowed, blob={"mmap": part})


def test_an_input_names_a_bounded_number_of_sources(root: Path) -> None:
    codec = Codec(read_contract(Many), Sources(MediaSettings(roots=(str(root),), max_references=3)))
    assert len(decoded(codec, images=[{"path": "picture"}] * 3)["images"]) == 3
    with pytest.raises(Invalid, match="names 4 sources; expected at most 3"):
        decoded(codec, images=[{"path": "picture"}] * 4)
    held = [{"base64": b64encode(color(1)).decode()}] * 4
    assert len(decoded(codec, images=held)["images"]) == 4


def test_nothing_is_opened_for_a_document_that_is_wrong_elsewhere(
    allowed: Codec, server: Origin
) -> None:
    with pytest.raises(AtomError):
        decoded(allowed, image={"url": server.url("/1")}, text=3)
    with pytest.raises(AtomError):
        allowed.decode(Payload(body=b'{"image":{"url":"%s"},"text":' % server.url("/1").encode()))
    assert not server.heads


def test_text_and_tensors_are_never_opened(allowed: Codec) -> None:
    with pytest.raises(Invalid):
        decoded(allowed, text={"path": "picture"})


class Talk(Wrapper):
    def session(self, inputs: Iterator[Image]) -> Iterator[int]:
        yield from reds(inputs)


def test_the_items_of_a_session_may_be_named(root: Path) -> None:
    codec = Codec(read_contract(Talk), Sources(MediaSettings(roots=(str(root),))))
    for form, encode in (("json", msgspec.json.encode), ("msgpack", msgspec.msgpack.encode)):
        item = Payload(form=form, body=encode({"path": "picture"}))
        assert reds([codec.decode_item(item)]) == [7]
    with pytest.raises(SourceRefused):
        codec.decode_item(Payload(body=b'{"path":"../x"}'))


class Awaited(Wrapper):
    async def predict(self, image: Image) -> int:
        return reds([image])[0]


def test_an_event_loop_goes_on_while_a_url_is_fetched(server: Origin) -> None:
    together = Barrier(2)

    def act(sock: socket.socket) -> None:
        together.wait(10)
        whole(color(6))(sock)

    server.routes["/wait"] = act
    settings = MediaSettings(urls=True, allow_networks=("127.0.0.0/8",))
    contract = read_contract(Awaited)
    runner = Runner(Awaited, contract, model="m", config={}, sources=Sources(settings))
    runner.load()
    payload = Payload(body=msgspec.json.encode({"image": {"url": server.url("/wait")}}))

    async def both() -> list[bytes]:
        answers = await asyncio.gather(runner.answer_async(payload), runner.answer_async(payload))
        return [bytes(answer.body) for answer in answers]

    assert asyncio.run(both()) == [b"6", b"6"]


def test_the_schema_shows_what_is_allowed_and_nothing_else(root: Path) -> None:
    def schemas(**settings: Any) -> dict[str, Any]:
        runner = Runner(
            Many,
            read_contract(Many),
            model="m",
            config={},
            sources=Sources(MediaSettings(**settings)),
        )
        return {field.name: field.schema for field in runner.signature.inputs}

    plain = read_contract(Many).signature
    assert schemas() == {field.name: field.schema for field in plain.inputs}
    shown = schemas(urls=True)
    text, url, path = "AAAA", {"url": "http://a/"}, {"path": "a"}
    for name, value in (("image", text), ("image", url), ("images", [text, url]), ("blob", url)):
        jsonschema.validate(value, shown[name])
    for name, value in (("image", path), ("images", [path]), ("nested", {"a": url}), ("text", url)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, shown[name])
    part = {"mmap": {"path": "a", "position": 0, "size": 1}}
    jsonschema.validate(part, schemas(roots=(str(root),), mmap=True)["image"])


# B12: what a picture may be, whichever way it comes.


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def one_bit(width: int, height: int) -> bytes:
    """Write a white PNG of one bit per pixel: a few kilobytes, whatever its size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    data = zlib.compress(row * height, 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_b12_the_largest_picture_takes_less_than_six_bytes_a_pixel(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(one_bit(6000, 6600))
    code = """
import resource, sys
from atomserve.codecs.pictures import decode_picture
data = open(sys.argv[1], "rb").read()
decode_picture(memoryview(open(sys.argv[2], "rb").read()))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = decode_picture(memoryview(data))
assert picture.shape == (6600, 6000, 3) and picture.min() == 255
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    (tmp_path / "small.png").write_bytes(png())
    names = [str(path), str(tmp_path / "small.png")]
    root = Path(__file__).parent.parent
    found = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=root, check=True, capture_output=True, text=True
    )
    assert int(found.stdout) < 6000 * 6600 * 3 * 2


def test_b12_a_list_of_large_pictures_is_refused_before_the_memory_is_there() -> None:
    settings = MediaSettings(max_pixels=1_000_000, max_list_pixels=3_000_000)
    codec = Codec(read_contract(Many), Sources(settings))
    image = b64encode(one_bit(1000, 1000)).decode()
    assert len(decoded(codec, images=[image] * 3)["images"]) == 3
    with pytest.raises(TooLarge, match="more than 3000000 pixels together"):
        decoded(codec, images=[image] * 4)


def test_b12_the_operator_decides_how_large_a_picture_may_be() -> None:
    codec = Codec(read_contract(Many), Sources(MediaSettings(max_pixels=100)))
    assert decoded(codec, image=b64encode(png(size=(10, 10))).decode())["image"].shape[0] == 10
    with pytest.raises(TooLarge, match=r"\$\.image: a picture of 11 x 10 pixels; expected at most"):
        decoded(codec, image=b64encode(png(size=(11, 10))).decode())


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_b12_frames_are_counted_from_the_header(kind: str) -> None:
    frames = [Pillow.new("RGB", (2, 2), (n % 256, n // 256, 0)) for n in range(300)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], lossless=True)
    data = memoryview(out.getvalue())
    with pytest.raises(AtomError, match="animated picture of 300 frames"):
        decode_picture(data, Pixels(frames=299))
    first = decode_picture(data, Pixels(frames=300))
    np.testing.assert_array_equal(first, np.asarray(frames[0]))


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt", b"eXIf"])
def test_b12_metadata_that_inflate_take_no_memory(kind: bytes) -> None:
    bomb = zlib.compress(bytes(30_000_000), 9)
    bodies = {
        b"iCCP": b"a\0\0" + bomb,
        b"zTXt": b"a\0\0" + bomb,
        b"iTXt": b"a\0\1\0\0\0" + bomb,
        b"eXIf": b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 60_000,
    }
    whole = png()
    data = whole[:33] + chunk(kind, bodies[kind]) + whole[33:]
    tracemalloc.start()
    try:
        assert decode_picture(memoryview(data)).shape == (3, 4, 3)
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10_000_000


# JPEG by the faster library is the same picture.


def photograph(seed: int, size: tuple[int, int] = (61, 47)) -> Pillow.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Pillow.fromarray(small).resize(size, Pillow.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 5}])
def test_a_jpeg_is_what_pillow_makes_of_it(mode: str, options: dict[str, Any]) -> None:
    for seed in range(5):
        out = io.BytesIO()
        photograph(seed).convert(mode).save(out, "JPEG", **options)
        expected = np.asarray(Pillow.open(out).convert("RGB")).astype(int)
        found = decode_picture(memoryview(out.getvalue()))
        assert np.abs(found - expected).max() <= 2


def test_without_the_extra_a_jpeg_is_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photograph(3).save(path, "JPEG")
    code = """
import sys
sys.modules["simplejpeg"] = None
from atomserve.codecs.pictures import decode_picture
sys.stdout.buffer.write(decode_picture(memoryview(open(sys.argv[1], "rb").read())).tobytes())
"""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code, str(path)]
    found = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
    plain = np.frombuffer(found, np.uint8).reshape(47, 61, 3).astype(int)
    assert np.abs(plain - decode_picture(memoryview(path.read_bytes()))).max() <= 2


def test_b13_a_damaged_jpeg_is_a_picture_or_refused_by_either_library() -> None:
    out = io.BytesIO()
    photograph(1).save(out, "JPEG")
    good, chance = out.getvalue(), random.Random(13)
    for _ in range(500):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(2, len(data))] ^= 1 << chance.randrange(8)
        try:
            shape = decode_picture(memoryview(bytes(data))).shape
        except (ValueError, AtomError):
            continue
        assert shape[2] == 3


def test_the_data_of_an_aiges_wrapper_may_be_named(root: Path) -> None:
    class Request:
        input1 = ImageBodyField(key="image", path="")

    class Shows:
        serviceId = "shows"
        requestCls = Request()

    described = describe(declared(Shows, name="shows"), "shows", once=True, stream=False)
    sources = Sources(MediaSettings(roots=(str(root),)))
    reader = Reader(described, Service(path="/"), Parameters([], "off"), sources)
    found = reader.once(Payload(body=b'{"image": {"path": "picture"}}'))
    assert [bytes(node.get_data()) for node in found.request.list] == [color(7)]


def test_the_cause_is_logged_and_not_told(server: Origin) -> None:
    settings = MediaSettings(urls=True, allow_networks=("127.0.0.0/8",))
    with capture_logs() as logs, pytest.raises(SourceFailed) as caught:
        Sources(settings).bytes_of({"url": server.url("/missing?token=secret")})
    assert caught.value.detail == "the URL's server answered with status 404"
    with capture_logs() as more, pytest.raises(SourceRefused) as refused:
        Sources(settings).bytes_of({"url": "http://user:secret@127.0.0.1/"})
    assert "canonical" in refused.value.detail
    assert [record["event"] for record in logs + more] == ["media.not_opened"] * 2
    assert logs[0]["place"] == f"127.0.0.1:{server.port}"
    assert "secret" not in str(logs + more)


@pytest.mark.parametrize(
    ("media", "wrong"),
    [
        ({"allow_networks": ["10.0.0.1/8"]}, "media.allow_networks"),
        ({"allow_networks": ["example.org"]}, "media.allow_networks"),
        ({"roots": ["data"]}, "media.roots"),
        ({"roots": ["/"]}, "media.roots"),
        ({"roots": ["/data/../etc"]}, "media.roots"),
        ({"roots": ["/data/"]}, "media.roots"),
        ({"mmap": True}, "media.mmap"),
        ({"allow_networks": ["10.0.0.0/8", "::1"], "roots": ["/data"], "mmap": True}, None),
    ],
)
def test_settings_that_would_open_another_place_are_refused(
    media: dict[str, Any], wrong: str | None
) -> None:
    found = [path for path, _ in conflicts(msgspec.convert({"media": media}, Settings))]
    assert found == ([] if wrong is None else [wrong])


def test_the_settings_reach_the_workers(tmp_path: Path, server: Origin) -> None:
    (tmp_path / "seen.py").write_text(
        "from atomserve import Image, Wrapper\n"
        "class Seen(Wrapper):\n"
        "    def predict(self, images: list[Image]) -> list[int]:\n"
        "        return [int(image[0, 0, 0]) for image in images]\n"
    )
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "picture").write_bytes(color(7))
    toml = (
        f'plugins = ["seen.py"]\n[media]\nurls = true\nallow_networks = ["127.0.0.0/8"]\n'
        f'roots = ["{tmp_path}/media"]\n'
    )
    with live(tmp_path, toml=toml) as running, running.client() as client:
        url = "/v1/models/seen/predict"
        images = [{"url": server.url("/2")}, {"path": "picture"}]
        answer = client.post(url, json={"images": images})
        assert (answer.status_code, answer.json()) == (200, [2, 7])
        refused = client.post(url, json={"images": [{"url": "http://169.254.169.254/"}]})
        assert (refused.status_code, refused.json()["code"]) == (400, "source_refused")
        failed = client.post(url, json={"images": [{"url": server.url("/missing")}]})
        assert (failed.status_code, failed.json()["code"]) == (502, "source_failed")
        shown = client.get("/openapi.json").json()
        assert '"url"' in msgspec.json.encode(shown["paths"]).decode()
