"""Pictures: encoded bytes to arrays and back, with every limit checked from the header."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from atomserve.errors import TooLarge, UnsupportedMedia

MAX_PIXELS = 40_000_000

ORIENTATION = 0x0112
UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

WRITERS: dict[str, dict[str, Any]] = {
    "image/png": {"format": "PNG", "compress_level": 1},
    "image/jpeg": {"format": "JPEG", "quality": 90},
    "image/webp": {"format": "WEBP", "quality": 90},
}


def decode_picture(data: memoryview) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, WebP or BMP file to upright RGB of shape (height, width, 3), read-only.

    Raises:
        UnsupportedMedia: another format, or an animation.
        TooLarge: more than `MAX_PIXELS`.
        ValueError: corrupt or truncated.
    """
    reader = _reader(bytes(data[:16]))
    if reader is WebPImageFile:
        # Its decoder allocates the canvas when it opens.
        _check_pixels(*_webp_size(bytes(data[:30])))
    try:
        picture = reader(io.BytesIO(data))
    except Exception as exc:  # decoders raise anything on bad data
        raise ValueError(f"not a readable picture: {exc}") from exc
    with picture:
        _check_pixels(*picture.size)
        if getattr(picture, "n_frames", 1) > 1:
            raise UnsupportedMedia("an animated picture; expected a single frame")
        try:
            return _upright_rgb(picture)
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


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooLarge(f"a picture of {width} x {height} pixels; expected at most {MAX_PIXELS}")


def _upright_rgb(picture: ImageFile) -> NDArray[np.uint8]:
    picture.load()
    orientation = picture.getexif().get(ORIENTATION)
    upright: Pillow.Image = picture
    if upright.mode.startswith("I"):
        upright = _eight_bit(upright)
    if upright.mode != "RGB":
        # A picture's transparency is left out; Pillow warns where it is not told so.
        upright.info.pop("transparency", None)
        upright = upright.convert("RGB")
    if orientation in UPRIGHT:
        upright = upright.transpose(UPRIGHT[orientation])
    array = np.asarray(upright)
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
