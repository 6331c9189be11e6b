"""The heap of an API process: pieces of bodies find the pages of those before them."""

import subprocess
import sys
import textwrap

import pytest

PIECES = """
    import resource
    from atomserve.server.heap import keep_freed_memory

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
