"""What decoding a picture costs by each library that could do it, in milliseconds of the processor.

The pictures are made: soft areas with a little noise, as a camera's are. OpenCV and simplejpeg are
left out where they are not installed.
"""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import numpy as np
from PIL import Image

from atomserve.codecs.pictures import decode_picture

SIZES = ((640, 480), (1920, 1080), (4000, 3000))
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "PNG": {"compress_level": 3},
    "WEBP": {"quality": 90},
}
Decoder = Callable[[bytes], Any]


def photograph(width: int, height: int) -> Image.Image:
    chance = np.random.default_rng(1)
    small = chance.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    soft = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    noisy = soft + chance.integers(-6, 7, soft.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def ours(data: bytes) -> Any:
    return decode_picture(memoryview(data))


def pillow(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decoders(kind: str) -> dict[str, Decoder]:
    found: dict[str, Decoder] = {"atomserve": ours, "pillow": pillow}
    if find_spec("cv2") is not None:
        import cv2

        cv2.setNumThreads(1)

        def opencv(data: bytes) -> Any:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

        found["opencv"] = opencv
    if kind == "JPEG" and find_spec("simplejpeg") is not None:
        import simplejpeg

        found["simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    return found


def milliseconds(decode: Decoder, data: bytes, times: int) -> float:
    taken = []
    for _ in range(times):
        start = thread_time()
        decode(data)
        taken.append(thread_time() - start)
    return median(taken) * 1000


def together(data: bytes, threads: int) -> float:
    """Time eight pictures, decoded by some threads."""
    with ThreadPoolExecutor(threads) as pool:
        start = perf_counter()
        list(pool.map(ours, [data] * 8))
        return (perf_counter() - start) * 1000


def main() -> None:
    for width, height in SIZES:
        picture = photograph(width, height)
        for kind, options in KINDS.items():
            out = io.BytesIO()
            picture.save(out, kind, **options)
            data, times = out.getvalue(), 15 if width < 4000 else 5
            line = f"{width} x {height} {kind}, {len(data) // 1024} KiB:"
            expected = pillow(data).astype(int)
            for name, decode in decoders(kind).items():
                off = np.abs(decode(data) - expected).max()
                line += f" {name} {milliseconds(decode, data, times):.1f}"
                line += f" (off by {off})" if off else ""
            line += f"; eight by one thread {together(data, 1):.0f}"
            print(f"{line}, by eight {together(data, 8):.0f}", flush=True)


if __name__ == "__main__":
    main()
