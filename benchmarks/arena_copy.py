"""What it costs to keep bodies that arrive in pieces: in an arena's blocks, or on the heap.

Four bodies arrive at once, their pieces by turns and each of them fresh from the socket, since a
heap that serves one body at a time reuses its pages as an arena does.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator

from atomserve.transport.arenas import Arena, Block

SIZE = 4_915_200
"""A float32 picture of 640 by 640 with three channels."""
PIECE = 65_536
BODIES = 4
ROUNDS = 40

SOURCE = memoryview(bytearray(range(256)) * (SIZE // 256))


def arriving() -> Iterator[tuple[int, int, bytes]]:
    """Yield which body, at what offset, and a piece of it."""
    for offset in range(0, SIZE, PIECE):
        for body in range(BODIES):
            yield body, offset, bytes(SOURCE[offset : offset + PIECE])


def nothing_kept(_: Arena) -> None:
    for _piece in arriving():
        pass


def taken(arena: Arena, size: int) -> Block:
    block = arena.take(size)
    assert block is not None
    return block


def warm_blocks(arena: Arena) -> None:
    blocks = [taken(arena, SIZE) for _ in range(BODIES)]
    for body, offset, piece in arriving():
        blocks[body].write(offset, piece)
    for block in blocks:
        block.free()


def fresh_blocks(arena: Arena) -> None:
    arena.trim()
    warm_blocks(arena)


def fresh_bytearrays(_: Arena) -> None:
    bodies = [bytearray() for _ in range(BODIES)]
    for body, _offset, piece in arriving():
        bodies[body] += piece


def sized_bytearrays(_: Arena) -> None:
    bodies = [bytearray(SIZE) for _ in range(BODIES)]
    for body, offset, piece in arriving():
        bodies[body][offset : offset + PIECE] = piece


def joined(_: Arena) -> None:
    bodies: list[list[bytes]] = [[] for _ in range(BODIES)]
    for body, _offset, piece in arriving():
        bodies[body].append(piece)
    for pieces in bodies:
        b"".join(pieces)


WAYS: list[Callable[[Arena], None]] = [
    nothing_kept,
    warm_blocks,
    fresh_blocks,
    fresh_bytearrays,
    sized_bytearrays,
    joined,
]


def main() -> None:
    arena = Arena(64 * 1024 * 1024)
    times: dict[str, list[float]] = {way.__name__: [] for way in WAYS}
    faults = dict.fromkeys(times, 0)
    for _ in range(ROUNDS):
        for way in WAYS:  # By turns, so that all meet the same machine.
            warm_blocks(arena)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            start = time.perf_counter()
            way(arena)
            times[way.__name__].append(time.perf_counter() - start)
            faults[way.__name__] += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    arena.close()
    arrival = statistics.median(times["nothing_kept"])
    base = statistics.median(times["warm_blocks"]) - arrival
    print(f"a body of {SIZE} bytes in pieces of {PIECE}: the median of {ROUNDS}, less its arrival")
    for way in WAYS[1:]:
        spent = statistics.median(times[way.__name__]) - arrival
        print(
            f"{way.__name__:<17}{spent / BODIES * 1e3:>7.3f} ms"
            f"{SIZE * BODIES / spent / 1e9:>7.2f} GB/s{spent / base:>7.2f} x the warm block"
            f"{faults[way.__name__] / ROUNDS / BODIES:>8.0f} page faults"
        )


if __name__ == "__main__":
    main()
