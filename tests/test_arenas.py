from __future__ import annotations

import gc
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from atomserve.errors import ConfigError
from atomserve.transport.arenas import ALIGNMENT, SEGMENT_SIZE, Arena, Block, Place, _seal
from atomserve.transport.descriptors import send_descriptors
from atomserve.transport.frames import Share, encode

MIB = 1024 * 1024
HERE = Path(__file__).parent


def taken(arena: Arena, size: int) -> Block:
    block = arena.take(size)
    assert block is not None
    return block


def open_memory_files() -> int:
    gc.collect()
    fds = (Path("/proc/self/fd") / fd for fd in os.listdir("/proc/self/fd"))
    return sum(fd.is_symlink() and str(fd.readlink()).startswith("/memfd") for fd in fds)


def test_a_block_holds_what_was_written_and_starts_aligned() -> None:
    arena = Arena(64 * MIB)
    first, second = taken(arena, 100), taken(arena, 200)
    first.write(0, b"a" * 100)
    second.write(0, b"b" * 150)
    second.write(150, memoryview(bytearray(b"c" * 50)))
    assert first.view == b"a" * 100
    assert second.view == b"b" * 150 + b"c" * 50
    assert first.place.offset % ALIGNMENT == second.place.offset % ALIGNMENT == 0
    arena.close()


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (100, 1), (0, 101), (99, 2)])
def test_a_write_that_does_not_fit_is_refused(offset: int, size: int) -> None:
    arena = Arena(64 * MIB)
    block = taken(arena, 100)
    with pytest.raises(ValueError, match="do not fit"):
        block.write(offset, b"x" * size)
    arena.close()


def test_a_block_is_freed_once_and_of_no_use_afterwards() -> None:
    arena = Arena(64 * MIB)
    block = taken(arena, 100)
    block.free()
    uses: list[Callable[[], object]] = [
        block.free,
        lambda: block.view,
        lambda: block.write(0, b"x"),
        lambda: block.resize(10),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="given back"):
            use()
    assert arena.used == 0
    arena.close()


def test_over_the_bound_there_is_no_block_until_one_is_freed() -> None:
    arena = Arena(32 * MIB)
    blocks = [taken(arena, 5 * MIB) for _ in range(6)]
    assert arena.take(5 * MIB) is None
    blocks[3].free()
    assert arena.take(5 * MIB) is not None
    assert arena.mapped == arena.bound
    arena.close()


def test_the_block_that_was_freed_last_is_taken_first() -> None:
    arena = Arena(64 * MIB)
    blocks = [taken(arena, MIB) for _ in range(5)]
    for index in (1, 3):
        blocks[index].free()
    assert taken(arena, MIB).place == blocks[3].place
    assert taken(arena, MIB).place == blocks[1].place
    arena.close()


def test_a_large_body_gets_a_segment_of_its_own() -> None:
    arena = Arena(128 * MIB)
    small, large = taken(arena, 1), taken(arena, 40 * MIB + 1)
    sizes = {number: segment.size for number, segment in arena.segments.items()}
    assert sizes[small.place.segment] == SEGMENT_SIZE
    assert sizes[large.place.segment] == 40 * MIB + mmap.PAGESIZE
    arena.close()


def test_unused_segments_make_room_for_one_that_is_larger() -> None:
    dropped: list[int] = []
    arena = Arena(64 * MIB, dropped.append)
    blocks = [taken(arena, 16 * MIB) for _ in range(4)]
    for block in blocks[:3]:
        block.free()
    large = taken(arena, 48 * MIB)
    assert dropped == [block.place.segment for block in blocks[:3]]
    assert large.place.segment not in dropped
    assert arena.mapped == arena.bound
    arena.close()


def test_unused_segments_stay_when_they_would_not_make_enough_room() -> None:
    dropped: list[int] = []
    arena = Arena(64 * MIB, dropped.append)
    blocks = [taken(arena, 16 * MIB) for _ in range(4)]
    blocks[0].free()
    assert arena.take(48 * MIB) is None
    assert dropped == []
    arena.close()


def test_a_block_grows_into_a_free_neighbour_and_no_further() -> None:
    arena = Arena(16 * MIB)
    block, neighbour = taken(arena, 64), taken(arena, 64)
    block.write(0, b"a" * 64)
    assert not block.resize(128)
    assert block.size == 64
    neighbour.free()
    assert block.resize(16 * MIB)
    assert block.view[:64] == b"a" * 64
    assert not block.resize(16 * MIB + 1)
    assert block.resize(65)
    assert arena.used == 128
    assert block.place == Place(0, 0, 65)
    block.free()
    assert arena.used == 0
    arena.close()


def test_a_block_is_found_by_its_place_while_it_lives() -> None:
    arena = Arena(64 * MIB)
    block = taken(arena, 100)
    assert arena.find(block.place) is block
    for wrong in (Place(0, 0, 99), Place(0, 64, 100), Place(1, 0, 100), Place(-1, -1, -1)):
        with pytest.raises(ValueError, match="no live block"):
            arena.find(wrong)
    block.free()
    with pytest.raises(ValueError, match="no live block"):
        arena.find(block.place)
    arena.close()


def test_trimming_drops_the_longest_unused_segments() -> None:
    dropped: list[int] = []
    arena = Arena(64 * MIB, dropped.append)
    blocks = [taken(arena, 16 * MIB) for _ in range(4)]
    for index in (2, 0, 1):
        blocks[index].free()
    arena.trim(keep=20 * MIB)
    assert dropped == [2, 0]
    arena.trim()
    assert dropped == [2, 0, 1]
    assert list(arena.segments) == [3]
    assert arena.mapped == 16 * MIB
    arena.close()


def test_nothing_is_left_of_a_closed_arena() -> None:
    before = open_memory_files()
    arena = Arena(64 * MIB)
    block = taken(arena, 100)
    view = block.view
    assert open_memory_files() > before
    arena.close()
    view[:1] = b"x"  # A view outlives it, and a late free is harmless.
    assert block.resize(50)
    block.free()
    assert arena.take(1) is None
    del view, block
    assert open_memory_files() == before


def test_a_block_may_be_taken_and_freed_in_any_thread() -> None:
    arena = Arena(64 * MIB)

    def churn(mark: int) -> None:
        for round_ in range(300):
            block = taken(arena, 1000 + round_)
            block.write(0, bytes([mark]) * block.size)
            assert block.view == bytes([mark]) * block.size
            block.free()

    threads = [threading.Thread(target=churn, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arena.used == 0
    arena.close()


def test_a_system_without_sealed_memory_is_told_in_one_line() -> None:
    fd = os.memfd_create("unsealable")
    with pytest.raises(ConfigError, match=r'^worker processes need Linux .* executor = "thread"'):
        _seal(fd)
    os.close(fd)


class ArenaMachine(RuleBasedStateMachine):
    blocks: Bundle[Block] = Bundle("blocks")
    sizes = st.one_of(st.integers(0, 300), st.integers(0, 40 * MIB))

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[int] = []
        self.arena = Arena(50 * MIB, self.dropped.append)
        self.live: dict[Block, int] = {}
        self.mark = 0

    @rule(target=blocks, size=sizes)
    def take(self, size: int) -> Any:
        block = self.arena.take(size)
        if block is None:
            return multiple()
        self.sign(block)
        return block

    @rule(block=blocks, size=sizes)
    def resize(self, block: Block, size: int) -> None:
        if block.resize(size):
            assert block.size == size
            self.sign(block)

    @rule(block=consumes(blocks))
    def free(self, block: Block) -> None:
        del self.live[block]
        block.free()

    @rule(keep=st.sampled_from([0, 16 * MIB, 40 * MIB]))
    def trim(self, keep: int) -> None:
        self.arena.trim(keep)

    def sign(self, block: Block) -> None:
        """Write to both ends, so that an overlap would show."""
        self.mark = self.live[block] = (self.mark + 1) % 256
        if block.size:
            block.view[:1] = block.view[-1:] = bytes([self.mark])

    @invariant()
    def blocks_keep_what_was_written(self) -> None:
        for block, mark in self.live.items():
            if block.size:
                assert block.view[0] == block.view[-1] == mark

    @invariant()
    def blocks_are_aligned_and_apart(self) -> None:
        ends: dict[int, int] = {}
        for place in sorted((b.place for b in self.live), key=lambda p: (p.segment, p.offset)):
            assert place.offset % ALIGNMENT == 0
            assert place.offset >= ends.get(place.segment, 0)
            ends[place.segment] = place.offset + max(place.size, 1)
            assert ends[place.segment] <= self.arena.segments[place.segment].size
            assert place.segment not in self.dropped

    @invariant()
    def the_counters_are_right(self) -> None:
        used = sum(-(-max(block.size, 1) // ALIGNMENT) * ALIGNMENT for block in self.live)
        assert self.arena.used == used
        assert self.arena.mapped == sum(s.size for s in self.arena.segments.values())
        assert used <= self.arena.mapped <= self.arena.bound

    def teardown(self) -> None:
        for block in self.live:
            block.free()
        assert self.arena.used == 0
        assert len(self.arena._gaps) == len(self.arena.segments)
        self.arena.trim()
        assert self.arena.mapped == 0
        assert not self.arena.segments
        self.arena.close()


TestArena = ArenaMachine.TestCase
TestArena.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@contextmanager
def reader(act: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    side, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with side, theirs:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "segment_reader.py"), str(theirs.fileno()), act],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )
        theirs.close()
        try:
            yield side, process
        finally:
            side.close()
            process.wait(10)


def share(side: socket.socket, arena: Arena, number: int) -> None:
    segment = arena.segments[number]
    send_descriptors(side, encode(Share(number, segment.size)), [segment.fd])


def test_another_process_reads_what_is_written_after_it_got_the_segment() -> None:
    arena = Arena(64 * MIB)
    arena.take(1000)
    block = taken(arena, 5)
    with reader("read") as (side, _):
        share(side, arena, block.place.segment)
        block.write(0, b"hello")
        place = block.place
        side.send(json.dumps([place.segment, place.offset, place.size]).encode())
        assert json.loads(side.recv(1000)) == "hello"
    arena.close()


def test_another_process_can_neither_write_nor_truncate() -> None:
    arena = Arena(64 * MIB)
    block = taken(arena, 5)
    block.write(0, b"hello")
    with reader("attack") as (side, process):
        share(side, arena, block.place.segment)
        outcomes = json.loads(side.recv(1000))
    assert process.returncode == 0
    assert set(outcomes.values()) == {"refused"}, outcomes
    assert bytes(block.view) == b"hello"
    arena.close()


def test_the_attacks_work_on_a_file_that_is_not_sealed() -> None:
    fd = os.memfd_create("unsealed")
    os.ftruncate(fd, MIB)
    with reader("attack") as (side, process):
        send_descriptors(side, encode(Share(0, MIB)), [fd])
        outcomes = json.loads(side.recv(1000))
    os.close(fd)
    assert process.returncode == 0
    assert outcomes.pop("add a seal") == "refused"
    assert set(outcomes.values()) == {"done"}, outcomes


def test_nothing_has_a_name_and_a_killed_reader_leaves_nothing() -> None:
    named = sorted(os.listdir("/dev/shm"))
    before = open_memory_files()
    arena = Arena(64 * MIB)
    block = taken(arena, 5)
    with reader("attack") as (side, process):
        share(side, arena, block.place.segment)
        side.recv(1000)
        assert sorted(os.listdir("/dev/shm")) == named
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    block.write(0, b"still")
    arena.close()
    del block
    assert open_memory_files() == before
    assert sorted(os.listdir("/dev/shm")) == named
