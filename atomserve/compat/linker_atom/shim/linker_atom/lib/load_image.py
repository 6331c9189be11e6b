"""Pictures by URL, path, base64 or part of a file, as arrays or as Pillow's pictures.

Only what the operator allows is opened; pixels are bounded before they are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atomserve.codecs.pictures import decode_picture
from atomserve.codecs.pixels import Pixels, from_pixels
from atomserve.compat.linker_atom.shim.linker_atom.lib.exception import VqlError
from atomserve.compat.linker_atom.sources import in_use
from atomserve.errors import AtomError, SourceFailed, SourceTimeout, TooLarge, UnsupportedMedia
from atomserve.media.sources import Opened

TRIES = 3
THREADS = 8

Picture = NDArray[np.uint8]
Loaders = dict[str, Callable[[Any], Any]]


def url_to_np(url: str) -> Picture:
    """Return the picture that a URL leads to, RGB of shape (H, W, 3); it is tried three times."""
    return _decoded(_fetched(url))


def local_to_np(path: str) -> Picture:
    """Return the picture in a file, RGB of shape (H, W, 3)."""
    return _decoded(_opened({"path": str(path)}))


def base64_to_np(data: str | bytes) -> Picture:
    """Return the picture that base64 text holds, RGB of shape (H, W, 3)."""
    return _decoded(_text(data))


def mmap_to_np(value: str | dict[str, Any]) -> Picture:
    """Return the raw pixels (blue, green, red) in a part of a file, as RGB of shape (H, W, 3)."""
    return _decoded(_part(value))


def url_to_pil(url: str) -> Image.Image:
    """Do what `url_to_np` does, and leave it as its camera was held."""
    return _pillow(_fetched(url))


def local_to_pil(path: str) -> Image.Image:
    """Do what `local_to_np` does, and leave it as its camera was held."""
    return _pillow(_opened({"path": str(path)}))


def base64_to_pil(b64_str: str | bytes) -> Image.Image:
    """Do what `base64_to_np` does, and leave it as its camera was held."""
    return _pillow(_text(b64_str))


def mmap_to_pil(value: str | dict[str, Any]) -> Image.Image:
    """Do what `mmap_to_np` does."""
    return _pillow(_part(value))


def video_to_np(path: str) -> Picture:
    """Refuse: decoders of films open whatever a film names, which nobody can bound."""
    raise VqlError(504)


NP: Loaders = {
    "url": url_to_np,
    "local": local_to_np,
    "base64": base64_to_np,
    "mmap": mmap_to_np,
}
PIL: Loaders = {
    "url": url_to_pil,
    "local": local_to_pil,
    "base64": base64_to_pil,
    "mmap": mmap_to_pil,
}


def load_image(
    src_type: str, data: Sequence[Any] | None, func_map: Loaders | None = None
) -> list[Any]:
    """Return the picture of each item of ``data``, in their order, several loaded at once.

    Raises:
        VqlError: 501 no picture, 502 a damaged one, 503 it cannot be got, 504 an unknown type.
    """
    if not data or src_type == "stream":
        return []
    load = (NP if func_map is None else func_map).get(src_type)
    if load is None:
        raise VqlError(504)
    if len(data) == 1:
        found = [load(data[0])]
    else:
        with ThreadPoolExecutor(min(len(data), THREADS), "LoadImage") as pool:
            found = list(pool.map(load, data))
    if any(each is None for each in found):
        raise VqlError(503)
    return found


load_np_image = partial(load_image, func_map=NP)
load_pil_image = partial(load_image, func_map=PIL)


async def async_url_to_np(data: Sequence[str]) -> list[Picture]:
    """Await what `load_np_image` returns for URLs."""
    return await anyio.to_thread.run_sync(load_np_image, "url", data)


async def async_url_to_pil(data: Sequence[str]) -> list[Image.Image]:
    """Await what `load_pil_image` returns for URLs."""
    return await anyio.to_thread.run_sync(load_pil_image, "url", data)


def _opened(reference: dict[str, Any]) -> Opened:
    sources = in_use()
    try:
        return sources.open(reference, sources.until())
    except (AtomError, ValueError) as exc:
        raise VqlError(503) from exc


def _fetched(url: str) -> Opened:
    sources = in_use()
    for left in reversed(range(TRIES)):
        try:
            return sources.open({"url": url}, sources.until())
        except (SourceFailed, SourceTimeout) as exc:
            if not left:
                raise VqlError(503) from exc
        except (AtomError, ValueError) as exc:
            raise VqlError(503) from exc
    raise AssertionError("unreachable")


def _text(data: str | bytes) -> Opened:
    # Upstream passes over line breaks, which some encoders write.
    text = b"".join((data.encode() if isinstance(data, str) else data).split())
    try:
        return in_use().open({"base64": text.decode()}, 0)
    except ValueError as exc:
        raise VqlError(501) from exc


def _part(value: str | dict[str, Any]) -> Opened:
    try:
        found = json.loads(value) if isinstance(value, str) else value
        numbers = {name: int(found[name]) for name in ("position", "size", "height", "width")}
        part = {"path": str(found["path"]), **numbers}
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise VqlError(501) from exc
    return _opened({"mmap": part})


def _decoded(opened: Opened, *, upright: bool = True) -> Picture:
    settings = in_use().settings
    pixels = Pixels(settings.max_pixels, settings.max_list_pixels, settings.max_frames)
    try:
        if opened.shape is not None:
            array = from_pixels(opened.data, *opened.shape, pixels)
        else:
            array = decode_picture(opened.data, pixels, upright=upright)
    except (UnsupportedMedia, TooLarge) as exc:
        raise VqlError(501) from exc
    except ValueError as exc:
        raise VqlError(502) from exc
    array.flags.writeable = True  # services draw on their pictures
    return array


def _pillow(opened: Opened) -> Image.Image:
    return Image.fromarray(_decoded(opened, upright=False))
