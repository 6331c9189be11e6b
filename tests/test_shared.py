"""Shared memory for bodies grows with what comes, and goes back when nothing does."""

from __future__ import annotations

import anyio
import pytest

from atomserve.backends.shared import WARM, Pool, SharedSink
from atomserve.errors import ArenaFull

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def unseen(_: int) -> None:
    pass


async def test_an_idle_pool_gives_its_memory_back_and_keeps_what_is_kept() -> None:
    pool = Pool(512 * MIB, unseen, idle=0.01)
    kept = pool.keep(100)
    pool.give_back(pool.take(2 * WARM))
    assert pool.arena.mapped > 2 * WARM
    with anyio.fail_after(10):
        while pool.arena.mapped > WARM:
            await anyio.sleep(0.001)
    assert not kept.freed
    assert pool.used == 0
    pool.arena.close()


async def test_a_body_of_unknown_size_may_fill_more_than_half_of_its_pool() -> None:
    pool = Pool(128 * MIB, unseen)
    sink = SharedSink(pool, None)
    piece = b"x" * MIB
    for _ in range(75):
        sink.write(piece)
    body = sink.close()
    assert len(body) == 75 * MIB
    assert bytes(body.block.view[-4:]) == b"xxxx"
    body.release()
    assert pool.used == 0
    pool.arena.close()


async def test_a_body_over_its_pool_is_refused_and_given_back() -> None:
    pool = Pool(32 * MIB, unseen)
    sink = SharedSink(pool, None)
    with pytest.raises(ArenaFull):
        for _ in range(40):
            sink.write(b"x" * MIB)
    sink.discard()
    assert pool.used == 0
    pool.arena.close()
