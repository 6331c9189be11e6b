"""Pictures: encoded bytes to arrays and back, with every limit checked from the header."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from atomserve.codecs.pixels import Array, Pixels
from atomserve.errors import UnsupportedMedia

ORIENTATION = 0x0112
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    2: lambda lying: lying[:, ::-1],
    3: lambda lying: lying[::-1, ::-1],
    4: lambda lying: lying[::-1],
    5: lambda lying: lying.transpose(1, 0, 2),
    6: lambda lying: lying[::-1].transpose(1, 0, 2),
    7: lambda lying: lying[::-1, ::-1].transpose(1, 0, 2),
    8: lambda lying: lying[:, ::-1].transpose(1, 0, 2),
}

BAND = 1 << 18
"""Pixels copied at once: more leave the processor's cache, and need memory of their own."""

WRITERS: dict[str, dict[str, Any]] = {
    "image/png": {"format": "PNG", "compress_level": 1},
    "image/jpeg": {"format": "JPEG", "quality": 90},
    "image/webp": {"format": "WEBP", "quality": 90},
}


def decode_picture(
    data: memoryview, pixels: Pixels | None = None, *, upright: bool = True
) -> Array:
    """Decode a JPEG, PNG, WebP or BMP file to RGB of shape (height, width, 3), read-only.

    ``upright`` turns it as its metadata say.

    Raises:
        UnsupportedMedia: another format, or an animation.
        TooLarge: more than ``pixels`` allows.
        ValueError: corrupt or truncated.
    """
    pixels = Pixels() if pixels is None else pixels
    reader = _reader(bytes(data[:16]))
    if reader is WebPImageFile:
        # Its decoder allocates the canvas when it opens.
        pixels.check(*_webp_size(bytes(data[:30])))
    try:
        picture = reader(io.BytesIO(data))
    except Exception as exc:  # decoders raise anything on bad data
        raise ValueError(f"not a readable picture: {exc}") from exc
    with picture:
        pixels.claim(*picture.size)
        if (frames := getattr(picture, "n_frames", 1)) > pixels.frames:
            most = "a single frame" if pixels.frames == 1 else f"at most {pixels.frames} frames"
            raise UnsupportedMedia(f"an animated picture of {frames} frames; expected {most}")
        try:
            return _turned(_rgb(picture, data), picture if upright else None)
        except Exception as exc:  # decoders raise anything on bad data
            raise ValueError(f"not a readable picture: {exc}") from exc


def _reader(prefix: bytes) -> type[ImageFile]:
    # The classes by themselves: `PIL.Image.open` tries other formats first and warns where a
    # refusal is wanted, and its limit is a switch for the whole process.
    if prefix.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if prefix.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if prefix.startswith(b"RIFF") and prefix[8:12] == b"WEBP":
        return WebPImageFile
    if prefix.startswith(b"BM"):
        return BmpImageFile
    raise UnsupportedMedia("not a picture that is taken here; expected JPEG, PNG, WebP or BMP")


def _webp_size(head: bytes) -> tuple[int, int]:
    number = int.from_bytes
    if len(head) == 30:
        if head[12:16] == b"VP8X":
            return number(head[24:27], "little") + 1, number(head[27:30], "little") + 1
        if head[12:16] == b"VP8L":
            bits = number(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if head[12:16] == b"VP8 ":
            return number(head[26:28], "little") & 0x3FFF, number(head[28:30], "little") & 0x3FFF
    raise ValueError("not a readable picture: a truncated or unknown WebP header")


def _rgb(picture: ImageFile, data: memoryview) -> Array:
    if isinstance(picture, JpegImageFile) and picture.mode in ("RGB", "L"):
        array = _fast_jpeg(data)
        if array is not None and array.shape[:2] == picture.size[::-1]:
            return array
    picture.load()
    plain: Pillow.Image = picture
    if plain.mode.startswith("I"):
        plain = _eight_bit(plain)
    # A picture's transparency is left out; Pillow warns where it is not told so.
    plain.info.pop("transparency", None)
    width, height = plain.size
    array = np.empty((height, width, 3), np.uint8)
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        band = plain.crop((0, top, width, min(top + rows, height)))
        found = (band if band.mode == "RGB" else band.convert("RGB")).tobytes()
        array[top : top + rows] = np.frombuffer(found, np.uint8).reshape(-1, width, 3)
    return array


def _fast_jpeg(data: memoryview) -> Array | None:
    """Decode by simplejpeg; None where it is not installed, or finds fault: Pillow decides then."""
    if (library := _simplejpeg()) is None:
        return None
    try:
        array: Array = library.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return array


@cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg  # type: ignore[no-any-return] # it has no types


def _turned(array: Array, picture: ImageFile | None) -> Array:
    orientation = None if picture is None else picture.getexif().get(ORIENTATION)
    if orientation in UPRIGHT:
        array = np.ascontiguousarray(UPRIGHT[orientation](array))
    array.flags.writeable = False
    return array


def _eight_bit(picture: Pillow.Image) -> Pillow.Image:
    # Pillow's own conversion cuts 16-bit grey off at 255.
    return Pillow.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))


def encode_picture(value: Any, media_type: str = "image/png") -> bytes:
    """Encode ``uint8`` grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4).

    Raises:
        ValueError: ``value`` is none of these.
    """
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{type(value).__name__}; expected a uint8 array of shape (H, W, 3)")
    if (
        value.dtype != np.uint8
        or value.ndim not in (2, 3)
        or value.shape[2:] not in ((), (3,), (4,))
        or 0 in value.shape
    ):
        raise ValueError(
            f"an array of {value.dtype}, shape {list(value.shape)}; expected a picture: uint8 of "
            "shape (H, W), (H, W, 3) or (H, W, 4)"
        )
    picture = Pillow.fromarray(np.ascontiguousarray(value))
    if media_type == "image/jpeg" and picture.mode == "RGBA":
        picture = picture.convert("RGB")
    out = io.BytesIO()
    try:
        picture.save(out, **WRITERS[media_type])
    except (OSError, ValueError) as exc:
        raise ValueError(f"a picture that has no {media_type} form: {exc}") from exc
    return out.getvalue()
