"""How often a JPEG goes over its pixels, and into how many parts a file is cut.

Each scan costs the time of all pixels, and each part that of Pillow's Python, for a few bytes.
"""

from __future__ import annotations

import re

from atomserve.errors import TooLarge

MOST_SCANS = 32
"""Encoders write 10 for a progressive picture, optimizers some more."""
MOST_SEGMENTS = 4096
"""Of 64 KiB each: metadata that are larger than that have as many as they need."""
MOST_CHUNKS = 16_384
"""Of a PNG, whose pixels some encoders cut into chunks of 8 KiB."""

START, END = b"\xda", b"\xd9"
# Within a scan's data 0xFF is followed by 0x00 or the number of a restart.
_SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")


def check_scans(data: memoryview) -> None:
    """Raise `TooLarge` for a JPEG file of too many scans or segments.

    Those of thumbnails, and of what follows the picture in its file, do not count.
    """
    place = scans = 0
    for _ in range(MOST_SEGMENTS):
        found = _SEGMENT.search(data, place)
        if found is None or found[1] == END:
            return
        scans += found[1] == START
        if scans > MOST_SCANS:
            raise TooLarge(f"a JPEG of many scans; expected at most {MOST_SCANS}")
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise TooLarge(f"a JPEG of many segments; expected at most {MOST_SEGMENTS}")


def check_chunks(data: memoryview) -> None:
    """Raise `TooLarge` for a PNG file of too many chunks."""
    place = 8
    for _ in range(MOST_CHUNKS):
        if place >= len(data):
            return
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    raise TooLarge(f"a PNG of many chunks; expected at most {MOST_CHUNKS}")
