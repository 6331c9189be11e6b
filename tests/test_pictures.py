"""Pictures: what is taken, what is refused from the header, what a wrapper sees."""

import io
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFile, PngImagePlugin

from atomserve.codecs.pictures import decode_picture, encode_picture
from atomserve.errors import TooLarge, UnsupportedMedia

RED, BLUE = (255, 0, 0), (0, 0, 255)


def corners(mode: str = "RGB", size: tuple[int, int] = (32, 16)) -> Pillow.Image:
    """Draw a red picture whose upper left quarter is blue."""
    picture = Pillow.new("RGB", size, RED)
    picture.paste(BLUE, (0, 0, size[0] // 2, size[1] // 2))
    return picture.convert(mode)


def saved(picture: Pillow.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return decode_picture(memoryview(data))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_a_picture_is_rgb_bytes_that_cannot_be_written(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    array = decoded(saved(corners(), kind, **options))
    assert array.dtype == np.uint8
    assert array.shape == (16, 32, 3)
    assert array.flags.c_contiguous
    assert not array.flags.writeable
    assert np.abs(array[0, 0].astype(int) - BLUE).max() < 10
    assert np.abs(array[-1, -1].astype(int) - RED).max() < 10


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA", "1", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        picture = Pillow.fromarray(np.full((4, 5), 0x8040, np.uint16))
    else:
        picture = corners(mode) if mode != "LA" else corners("RGBA").convert("LA")
    array = decoded(saved(picture, "PNG"))
    assert array.shape[2:] == (3,)
    if mode == "I;16":
        assert set(array.ravel()) == {0x80}


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    data = saved(corners("P"), "PNG", transparency=b"\x00\x80\xff")
    assert decoded(data).shape == (16, 32, 3)


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    assert decoded(saved(corners("CMYK"), "JPEG")).shape == (16, 32, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_stands_upright(orientation: int, kind: str) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    plain = decoded(saved(corners(), kind))
    expected = turns.get(orientation, lambda a: a)(plain)
    np.testing.assert_array_equal(decoded(saved(corners(), kind, exif=exif)), expected)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "ICO", "PPM", "TGA", "PCX", "PDF", "EPS"])
def test_other_formats_are_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match="JPEG, PNG, WebP or BMP"):
        decoded(saved(corners(), kind))


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"8BPS\0\1", b"SIMPLE  =", b"RIFF0000WAVE"])
def test_what_is_no_picture_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        decoded(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_unsupported(kind: str) -> None:
    frames = [Pillow.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    with pytest.raises(UnsupportedMedia, match="animated"):
        decoded(saved(frames[0], kind, save_all=True, append_images=frames[1:]))


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_bomb(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def webp_bomb(kind: bytes) -> bytes:
    body = {
        b"VP8X": bytes(4) + b"\xff\xff\xff" + b"\xff\xff\xff",
        b"VP8L": b"\x2f" + b"\xff\xff\xff\x0f" + bytes(5),
        b"VP8 ": bytes(3) + b"\x9d\x01\x2a" + b"\xff\x3f\xff\x3f",
    }[kind]
    inner = b"WEBP" + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


def bmp_bomb() -> bytes:
    data = bytearray(saved(corners(), "BMP"))
    data[18:26] = struct.pack("<ii", 30_000, 30_000)
    return bytes(data)


def jpeg_bomb() -> bytes:
    data = bytearray(saved(corners(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png_bomb(13_000, 13_000),
        png_bomb(30_000, 30_000),
        webp_bomb(b"VP8X"),
        webp_bomb(b"VP8L"),
        webp_bomb(b"VP8 "),
        bmp_bomb(),
        jpeg_bomb(),
    ],
    ids=["png", "larger png", "webp canvas", "webp lossless", "webp lossy", "bmp", "jpeg"],
)
def test_too_many_pixels_are_refused_by_the_header(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="at most 40000000"):
            decoded(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_text_chunk_that_inflates_is_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("k", "a" * 20_000_000, zip=True)
    with pytest.raises(ValueError, match="not a readable picture"):
        decoded(saved(corners(), "PNG", pnginfo=info))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    data = saved(corners(size=(64, 64)), kind)
    for end in (17, 31, len(data) // 2):
        with pytest.raises(ValueError, match="not a readable picture"):
            decoded(data[:end])
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_a_picture_or_refused(kind: str) -> None:
    chance = random.Random(kind)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    options = {} if kind == "BMP" else {"exif": exif}
    good = saved(corners(size=(24, 24)), kind, **options)
    refused = 0
    for _ in range(500):
        data = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            assert decoded(bytes(data)).ndim == 3
        except (ValueError, UnsupportedMedia, TooLarge):
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 4)])
def test_grey_rgb_and_rgba_are_written(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
    for media_type in ("image/png", "image/webp", "image/jpeg"):
        picture = Pillow.open(io.BytesIO(encode_picture(array, media_type)))
        assert picture.size == (4, 5)
    picture = Pillow.open(io.BytesIO(encode_picture(array)))
    np.testing.assert_array_equal(np.asarray(picture), array)


def test_an_array_in_any_order_is_written() -> None:
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5).T[::-1, :, :3]
    np.testing.assert_array_equal(decoded(encode_picture(array)), array)


def test_a_picture_too_wide_for_its_format_is_told() -> None:
    with pytest.raises(ValueError, match="no image/webp form"):
        encode_picture(np.zeros((1, 20_000, 3), np.uint8), "image/webp")


def test_b12_a_png_of_countless_chunks_is_refused_before_they_are_read() -> None:
    whole = encode_picture(np.zeros((4, 4), np.uint8))
    chunk = struct.pack(">I", 0) + b"aaAa" + struct.pack(">I", zlib.crc32(b"aaAa"))
    place = whole.index(b"IDAT") - 4
    many = memoryview(whole[:place] + chunk * 20_000 + whole[place:])
    with pytest.raises(TooLarge, match="chunks"):
        decode_picture(many)


def progressive(more: int, before: bytes = b"", after: bytes = b"") -> memoryview:
    """Return a progressive JPEG whose last scan comes ``more`` times again."""
    out = io.BytesIO()
    Pillow.new("L", (64, 64), 99).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    return memoryview(whole[:2] + before + whole[2:-2] + scan * more + whole[-2:] + after)


def test_b12_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused() -> None:
    assert decode_picture(progressive(20)).shape == (64, 64, 3)
    with pytest.raises(TooLarge, match="scans"):
        decode_picture(progressive(1000))


def test_b12_a_jpeg_of_countless_segments_is_refused_before_they_are_read() -> None:
    with pytest.raises(TooLarge, match="segments"):
        decode_picture(progressive(0, b"\xff\xfe\x00\x02" * 5000))


def test_the_scans_of_a_thumbnail_and_of_what_follows_a_picture_do_not_count() -> None:
    other = b"\xff\xda" * 50
    segment = b"\xff\xed" + (len(other) + 2).to_bytes(2, "big") + other
    assert decode_picture(progressive(0, segment, other)).shape == (64, 64, 3)
