"""How long a frame takes from one process's object to the other's, without the socket."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

from atomserve.transport.arenas import Place
from atomserve.transport.frames import (
    Answered,
    Decoder,
    Done,
    FromWorker,
    Run,
    ToWorker,
    encode_into,
)

TURN = 32
"""Frames that share one buffer, as those of one loop turn do."""

HEADERS = [
    (b"host", b"localhost:8000"),
    (b"user-agent", b"python-httpx/0.28"),
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
    (b"content-length", b"15"),
]
BODY = b'{"text":"hello"}'


def run(job: int, **more: Any) -> Run:
    fields = {"request_id": "0123456789abcdef", "media_type": "application/json"} | more
    return Run(job, "call", "json", "json", BODY, 12345.678, **fields)


FRAMES: list[tuple[str, Any, Any]] = [
    ("Run, tiny", ToWorker, run(70_000)),
    ("Run, 5 headers", ToWorker, run(70_000, headers=HEADERS)),
    ("Run, a place", ToWorker, Run(7, "call", "npy", "npy", Place(3, 5 << 20, 4 << 20), 12345.6)),
    ("Answered, tiny", FromWorker, Answered(70_000, BODY, "application/json", last=True)),
    ("Done", FromWorker, Done(70_000)),
    ("Answered, 64 KiB", FromWorker, Answered(7, bytes(65536), "application/x-npy", last=True)),
]


def seconds(function: Callable[[], object]) -> float:
    timer = timeit.Timer(function, timer=time.process_time)
    rounds, _ = timer.autorange()
    return min(timer.repeat(9, rounds)) / rounds / TURN


def encoded(frame: Any) -> bytearray:
    buffer = bytearray()
    for _ in range(TURN):
        encode_into(buffer, frame)
    return buffer


def one_by_one(decoder: Decoder[Any], frame: bytes) -> None:
    for _ in range(TURN):
        decoder.feed(frame)


def main() -> None:
    print("µs per frame, with 32 in a chunk, or decoded one by one")
    print(f"{'frame':<18}{'bytes':>7}{'encode':>9}{'decode':>9}{'1 by 1':>9}{'both ways':>14}")
    for name, kinds, frame in FRAMES:
        decoder: Decoder[Any] = Decoder(kinds)
        chunk = bytes(encoded(frame))
        single = chunk[: len(chunk) // TURN]
        encode = 1e6 * seconds(partial(encoded, frame))
        decode = 1e6 * seconds(partial(decoder.feed, chunk))
        alone = 1e6 * seconds(partial(one_by_one, decoder, single))
        print(f"{name:<18}{len(single):>7}{encode:>9.2f}{decode:>9.2f}{alone:>9.2f}", end="")
        print(f"{1e6 / (encode + decode):>12,.0f}/s")


if __name__ == "__main__":
    main()
