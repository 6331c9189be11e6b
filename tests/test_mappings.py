from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomserve.transport.arenas import Arena, Block, Place
from atomserve.transport.mappings import Mapping

MIB = 1024 * 1024
BOUND = 64 * MIB


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(BOUND)
    yield arena
    arena.close()


def mapping_of(arena: Arena) -> Mapping:
    mapping = Mapping(BOUND)
    for number, segment in arena.segments.items():
        mapping.add(number, os.dup(segment.fd), segment.size)
    return mapping


def filled(arena: Arena, data: bytes) -> Block:
    block = arena.take(len(data))
    assert block is not None
    block.write(0, data)
    return block


def test_a_root_shows_a_place_without_a_copy_and_cannot_be_written(arena: Arena) -> None:
    filled(arena, b"other")
    block = filled(arena, b"hello")
    root = mapping_of(arena).root(block.place, lambda _: None)
    assert root.tobytes() == b"hello"
    block.write(0, b"j")
    assert root.tobytes() == b"jello"
    with pytest.raises(ValueError, match="read-only"):
        root[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        root.setflags(write=True)


def _dlpack(root: Any) -> Any:
    return np.from_dlpack(root.view(np.uint16))


@pytest.mark.parametrize(
    "make",
    [
        lambda root: root[10:20],
        lambda root: root.reshape(4, 16)[1:].T[2:],
        lambda root: root.view(np.float32).reshape(2, 8)[1],
        lambda root: root[:32].view(np.uint16)[::2][1:],
        lambda root: memoryview(root)[10:20],
        lambda root: root.data[10:20],
        lambda root: memoryview(memoryview(root)[1:]).cast("B")[2:],
        lambda root: np.frombuffer(memoryview(root)[10:20], np.uint8),
        lambda root: np.frombuffer(root, np.int32)[1:].reshape(3, 5)[0],
        lambda root: np.asarray(root)[5:].view(),
        lambda root: np.lib.stride_tricks.as_strided(root, (3,), (1,)),
        lambda root: np.split(root, 4)[2],
        lambda root: iter(root[3:]),
        _dlpack,
    ],
)
def test_whatever_is_made_of_a_root_keeps_its_place(
    arena: Arena, make: Callable[[Any], Any]
) -> None:
    block = filled(arena, bytes(64))
    freed: list[Place] = []
    made = make(mapping_of(arena).root(block.place, freed.append))
    gc.collect()
    assert freed == []
    del made
    gc.collect()
    assert freed == [block.place]


def test_each_root_of_a_place_is_freed_once(arena: Arena) -> None:
    block = filled(arena, b"hello")
    freed: list[Place] = []
    mapping = mapping_of(arena)
    first, second = (mapping.root(block.place, freed.append) for _ in range(2))
    del first
    assert freed == [block.place]
    del mapping
    gc.collect()
    assert freed == [block.place]
    assert second.tobytes() == b"hello"
    del second
    assert freed == [block.place] * 2


def test_a_place_is_freed_in_whatever_thread_lets_go_of_it(arena: Arena) -> None:
    block = filled(arena, b"hello")
    freed: list[str] = []
    roots = [
        mapping_of(arena).root(block.place, lambda _: freed.append(threading.current_thread().name))
    ]
    thread = threading.Thread(target=roots.clear, name="last")
    thread.start()
    thread.join()
    assert freed == ["last"]


def test_a_dropped_segment_is_unmapped_with_its_last_view(arena: Arena) -> None:
    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("/memfd:atomserve" in line for line in maps)

    block = filled(arena, b"hello")
    gc.collect()
    before = mapped()
    mapping = mapping_of(arena)
    view = mapping.root(block.place, lambda _: None).data[1:]
    mapping.drop(block.place.segment)
    assert mapping.mapped == 0
    with pytest.raises(ValueError, match="no segment"):
        mapping.root(block.place, lambda _: None)
    assert view.tobytes() == b"ello"
    assert mapped() == before + 1
    del view
    assert mapped() == before


def test_a_segment_that_is_not_there_cannot_be_dropped() -> None:
    with pytest.raises(ValueError, match="not there"):
        Mapping(BOUND).drop(3)


numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-2, 70),
    st.integers(16 * MIB - 2, 16 * MIB + 2),
    st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, -(2**63)]),
)


@settings(deadline=None)
@given(segment=st.integers(-1, 2), offset=numbers, size=numbers)
def test_a_place_is_within_its_segment_or_refused(segment: int, offset: int, size: int) -> None:
    mapping = _mapping()
    place = Place(segment, offset, size)
    try:
        root = mapping.root(place, lambda _: None)
    except ValueError:
        assert not (segment == 0 and 0 <= offset <= offset + size <= 16 * MIB)
    else:
        assert root.size == size
        assert segment == 0
        assert 0 <= offset <= offset + size <= 16 * MIB
        assert not root[-1:].any()


_kept: list[Mapping] = []


def _mapping() -> Mapping:
    """One for all examples, of one empty segment."""
    if not _kept:
        arena = Arena(BOUND)
        arena.take(1)
        _kept.append(mapping_of(arena))
        arena.close()
    return _kept[0]


def _unsealed() -> int:
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    return fd


def _unsealable() -> int:
    return os.open("/dev/zero", os.O_RDONLY)


def _pipe() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


@pytest.mark.parametrize("make", [_unsealed, _unsealable, _pipe])
@pytest.mark.parametrize("size", [4096, 0, -1])
def test_what_could_shrink_under_its_reader_is_not_mapped(
    make: Callable[[], int], size: int
) -> None:
    fd = make()
    mapping = Mapping(BOUND)
    with pytest.raises(ValueError, match="not a sealed one"):
        mapping.add(0, fd, size)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert 0 not in mapping


@pytest.mark.parametrize("lie", [-1, 1, 2**40])
def test_a_segment_of_another_size_is_not_mapped(arena: Arena, lie: int) -> None:
    filled(arena, b"x")
    segment = arena.segments[0]
    with pytest.raises(ValueError, match="segment 0"):
        Mapping(2**50).add(0, os.dup(segment.fd), segment.size + lie)


def test_a_peer_cannot_make_its_reader_map_more_than_the_bound(arena: Arena) -> None:
    filled(arena, b"x")
    segment = arena.segments[0]
    mapping = Mapping(segment.size + 1)
    mapping.add(0, os.dup(segment.fd), segment.size)
    for number in (0, 1):
        with pytest.raises(ValueError, match="over the bound"):
            mapping.add(number, os.dup(segment.fd), segment.size)


def test_an_array_that_lives_until_the_interpreter_ends_says_nothing() -> None:
    script = """
import os, sys, threading
from atomserve.transport.arenas import Arena
from atomserve.transport.mappings import Mapping
arena, mapping = Arena(1 << 26), Mapping(1 << 26)
block = arena.take(100)
mapping.add(0, os.dup(arena.segments[0].fd), arena.segments[0].size)
def told(place): print("told", place)
root = mapping.root(block.place, told)
sys.modules["kept"] = [root[5:]]
class Cycle: pass
cycle = Cycle()
cycle.me, cycle.root = cycle, mapping.root(block.place, told)
threading.Thread(target=threading.Event().wait, daemon=True, args=()).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
