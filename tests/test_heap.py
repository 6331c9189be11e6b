"""The heap of a process that serves: warm pages for bodies, and little for the collector to do."""

import subprocess
import sys
import textwrap

import pytest

PIECES = """
    import resource
    from atomserve.heap import keep_freed_memory

    keep_freed_memory()
    for size in (100_000, 256_000, 65_536):
        bytearray(b"x" * size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for number in range(1000):
        piece = bytearray(b"x" * 256_000)
        copy = bytes(piece)
        del piece, copy
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_pieces_of_bodies_cost_no_page_faults() -> None:
    command = [sys.executable, "-c", textwrap.dedent(PIECES)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000


OLD = """
    import gc
    from atomserve.heap import spare_the_old

    old = [[] for _ in range(100_000)]
    spare_the_old()
    print(gc.get_freeze_count() >= 100_000, len(gc.get_objects()) < 1000)
"""


def test_the_collector_looks_no_more_at_what_there_was_at_the_start() -> None:
    command = [sys.executable, "-c", textwrap.dedent(OLD)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]
