"""What the system says of a process."""

from __future__ import annotations

import mmap
import os

from atomserve.telemetry.vitals import own_memory, resident

SIZE = 64 * 1024 * 1024
NOISE = 16 * 1024 * 1024


def looked() -> tuple[int, int]:
    pid = os.getpid()
    return resident(pid) or 0, own_memory(pid) or 0


def test_memory_that_is_shared_is_no_processs_own() -> None:
    fd = os.memfd_create("vitals")
    os.ftruncate(fd, SIZE)
    before = looked()
    with mmap.mmap(fd, SIZE) as shared:
        os.close(fd)
        shared[:: mmap.PAGESIZE] = bytes(SIZE // mmap.PAGESIZE)
        after = looked()
    assert after[0] - before[0] > SIZE - NOISE
    assert after[1] - before[1] < NOISE


def test_memory_that_a_process_wrote_is_its_own() -> None:
    before = looked()
    kept = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    kept[:: mmap.PAGESIZE] = b"\1" * (SIZE // mmap.PAGESIZE)
    after = looked()
    kept.close()
    assert after[1] - before[1] > SIZE - NOISE


def test_a_process_that_has_ended_has_no_memory() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert own_memory(pid) is None
