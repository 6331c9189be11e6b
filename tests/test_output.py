"""What plugins print becomes lines of the log, whatever they print."""

from __future__ import annotations

import os
import subprocess
import time

import anyio
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from atomserve.supervisor.output import (
    MOST_BYTES,
    MOST_IN_TURN,
    MOST_LINES,
    TURN,
    Allowance,
    Lines,
    Output,
    Pace,
    readable,
)


@given(st.lists(st.binary(max_size=60)))
def test_any_split_gives_the_same_lines(pieces: list[bytes]) -> None:
    whole, split = Lines(), Lines()
    found = [line for piece in pieces for line in split.feed(piece)]
    assert found + split.feed(b"\n") == whole.feed(b"".join(pieces) + b"\n")


def test_lines_end_as_terminals_end_them_and_empty_ones_are_left_out() -> None:
    lines = Lines()
    assert lines.feed(b"10%\r20%\r\n\n\ndone\nre") == [b"10%", b"20%", b"done"]
    assert lines.feed(b"st\n") == [b"rest"]


def test_of_an_endless_line_only_the_beginning_is_kept() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * 65536) == []
    (line,) = lines.feed(b"\n")
    assert len(line) == MOST_BYTES + 1
    assert readable(line) == "x" * MOST_BYTES + "..."


@given(st.binary(max_size=100))
def test_any_bytes_are_readable(line: bytes) -> None:
    readable(line).encode()


def test_an_allowance_is_renewed_each_second() -> None:
    now = 100.0
    allowance = Allowance(5, clock=lambda: now)
    assert [allowance.take(3), allowance.take(3), allowance.take(3)] == [3, 2, 0]
    now = 100.9
    assert allowance.take(1) == 0
    assert allowance.renews_in == pytest.approx(0.1)
    now = 101.0
    assert allowance.take(9) == 5


def test_who_writes_without_end_is_read_at_a_pace() -> None:
    now = 100.0
    pace = Pace(1000, clock=lambda: now)
    assert [pace.take(400), pace.take(400)] == [0.0, 0.0]
    now += TURN / 2
    assert pace.take(400) == pytest.approx(TURN / 2)
    now += TURN / 2
    assert pace.take(999) == 0.0
    assert pace.take(1) == pytest.approx(TURN)


def test_a_flood_is_read_no_faster_than_its_pace() -> None:
    async def read() -> float:
        reader, writer = os.pipe()
        flood = subprocess.Popen(["yes"], stdout=writer)
        os.close(writer)
        output = Output({"stdout": reader}, dict)
        began = time.monotonic()
        with anyio.move_on_after(1.0):
            await output.follow()
        seconds = time.monotonic() - began
        flood.kill()
        flood.wait()
        output.finish()
        os.close(reader)
        return seconds

    with structlog.testing.capture_logs() as records:
        seconds = anyio.run(read)
    written = 2 * sum(record.get("lines", 1) for record in records)
    assert MOST_IN_TURN < written <= (seconds / TURN + 2) * 2 * MOST_IN_TURN


async def read_all(written: bytes, *, close: bool = True) -> list[dict[str, object]]:
    """Return the records of an output that ends after ``written``."""
    reader, writer = os.pipe()
    output = Output({"stdout": reader}, lambda: {"model": "a", "slot": 0})
    with structlog.testing.capture_logs() as records:
        async with anyio.create_task_group() as tasks:
            if close:
                tasks.start_soon(output.follow)
            left = memoryview(written)
            os.set_blocking(writer, False)
            while left:
                try:
                    left = left[os.write(writer, left) :]
                except BlockingIOError:
                    await anyio.wait_writable(writer)
            if close:
                os.close(writer)
        output.finish()
    os.close(reader)
    if not close:
        os.close(writer)
    return list(map(dict, records))


def test_lines_carry_their_origin_and_the_last_needs_no_end() -> None:
    records = anyio.run(read_all, b"one\ntwo")
    assert [record["text"] for record in records] == ["one", "two"]
    assert records[0] == {
        "event": "plugin.output",
        "log_level": "info",
        "model": "a",
        "slot": 0,
        "stream": "stdout",
        "text": "one",
    }


def test_what_is_too_much_is_counted() -> None:
    records = anyio.run(read_all, b"line\n" * 100_000)
    lines = [record for record in records if record["event"] == "plugin.output"]
    dropped = [record["lines"] for record in records if record["event"] == "plugin.output_dropped"]
    assert len(lines) in (MOST_LINES, 2 * MOST_LINES)  # it may take more than a second
    assert len(lines) + sum(map(int, map(str, dropped))) == 100_000


def test_the_end_does_not_wait_for_others_that_hold_the_pipe() -> None:
    async def read() -> list[dict[str, object]]:
        return await read_all(b"last words\n", close=False)

    (record,) = anyio.run(read)
    assert record["text"] == "last words"
