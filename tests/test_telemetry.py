"""What is logged is one valid line each, whatever is in it and whoever reads it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import numpy as np
import pytest
import structlog

from atomserve.telemetry.logs import AccessLog, clean, configure_logging
from atomserve.telemetry.sink import Sink

REQUEST: dict[str, Any] = {
    "request_id": "a-1",
    "method": "GET",
    "path": "/",
    "status": 200,
    "duration": 0.0015,
}

HOSTILE = [
    "\r\nFAKE line",
    "\x1b[31mred\x1b[0m",
    'quote " backslash \\ brace }',
    "\x00\x7f\x9b\u2028\u202e\ud800",
    "x" * 1_000_000,
]


class Pipe:
    """Both ends of a pipe: one to log to, one to read what came out."""

    def __init__(self) -> None:
        self.reader, fd = os.pipe()
        self.writer = os.fdopen(fd, "wb", buffering=0)
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        data = b""
        with suppress(BlockingIOError):
            while piece := os.read(self.reader, 1 << 20):
                data += piece
        return data

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read().split(b"\n") if line]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    with suppress(OSError):
        os.close(pipe.reader)
    pipe.writer.close()


@pytest.fixture
def configured(pipe: Pipe) -> Iterator[Pipe]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers.clear()
    sink = configure_logging("json", "info", stream=pipe.writer)
    yield pipe
    sink.close()
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_s17_an_event_is_one_valid_line_without_control_characters(
    configured: Pipe, text: str
) -> None:
    structlog.get_logger().info(text, **{"value": text, "many": [text], "k\n": 1})
    line = configured.read()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert not any(byte < 32 or byte == 127 for byte in line[:-1])
    record = json.loads(line)
    assert all(len(str(value)) <= 2100 for value in record.values())
    assert clean(record["value"]) == record["value"]


def test_what_cannot_be_encoded_is_still_logged(configured: Pipe) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    log = structlog.get_logger()
    itself: list[Any] = []
    itself.append(itself)
    log.info("odd", huge=1 << 100_000, broken=Broken(), itself=itself, nan=float("nan"))
    log.info("plain", number=np.float64(0.5), names=("a", 1, None), flag=True)
    odd, plain = configured.records()
    assert odd["huge"].startswith("0x1000")
    assert (odd["broken"], odd["itself"], odd["nan"]) == ("<Broken>", ["[[...]]"], None)
    assert (plain["number"], plain["names"], plain["flag"]) == (0.5, ["a", 1, None], True)


def test_a_traceback_keeps_its_lines_and_its_end(configured: Pipe) -> None:
    try:
        raise ValueError("the\x1b[31m end")
    except ValueError:
        structlog.get_logger().exception("failed")
    (record,) = configured.records()
    assert record["level"] == "error"
    assert record["exception"].endswith("ValueError: the\\x1b[31m end")
    assert "\n" in record["exception"]


def test_the_standard_librarys_records_come_out_as_ours(configured: Pipe) -> None:
    logging.getLogger("hypercorn.error").error("Error in %s", "ASGI Framework")
    ours = [
        h for h in logging.getLogger().handlers if type(h).__module__ == "atomserve.telemetry.logs"
    ]
    broken = logging.LogRecord("library", logging.INFO, "", 0, "wrong %d", ("arguments",), None)
    ours[0].handle(broken)
    logging.getLogger("hypercorn.error").debug("not at this level")
    first, second = configured.records()
    assert (first["event"], first["level"]) == ("Error in ASGI Framework", "error")
    assert first["logger"] == "hypercorn.error"
    assert second["event"] == "wrong %d"


def test_levels_below_the_configured_one_are_not_written(configured: Pipe) -> None:
    structlog.get_logger().debug("quiet")
    assert configured.read() == b""


def test_the_console_form_escapes_what_drives_a_terminal(pipe: Pipe) -> None:
    root = logging.getLogger()
    handlers = root.handlers[:]
    sink = configure_logging("console", stream=pipe.writer)
    structlog.get_logger().info("event\x1b[31m", path="/\r\nFAKE")
    structlog.reset_defaults()
    root.handlers[:] = handlers
    sink.close()
    line = pipe.read()
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line and b"\r" not in line


def test_f18_logging_goes_on_when_the_reader_of_the_pipe_has_gone(configured: Pipe) -> None:
    os.close(configured.reader)
    for _ in range(3):
        structlog.get_logger().info("nobody reads")


def test_f18_a_process_whose_log_has_no_reader_lives_on() -> None:
    code = (
        "import structlog, sys\n"
        "from atomserve.telemetry.logs import configure_logging\n"
        "sink = configure_logging()\n"
        "sys.stdin.readline()\n"
        "for _ in range(100): structlog.get_logger().info('x' * 2000)\n"
        "print(sink.lost)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = None
        out, _ = process.communicate("go\n", timeout=10)
        assert (process.returncode, out.strip()) == (0, "100")


def test_a_pipe_that_nobody_empties_is_not_waited_for(pipe: Pipe) -> None:
    sink = Sink(pipe.writer.fileno())
    written = 0
    while sink.write(b"y" * 999 + b"\n"):
        written += 1
    assert sink.stuck
    sink.line(b"lost")
    assert sink.lost == 1
    lines = pipe.read().split(b"\n")[:-1]
    assert sink.write(b"after\n")
    lines += pipe.read().split(b"\n")[:-1]
    assert lines == [b"y" * 999] * written + [b"after"]
    sink.close()


def test_sharing_a_pipe_does_not_make_it_non_blocking_for_others(pipe: Pipe) -> None:
    sink = Sink(pipe.writer.fileno())
    assert os.get_blocking(pipe.writer.fileno())
    sink.close()


@pytest.mark.anyio
async def test_records_of_a_window_are_written_together_and_nothing_runs_after(pipe: Pipe) -> None:
    log = AccessLog(Sink(pipe.writer.fileno()), write_every=0.02)
    for number in range(5):
        log.record(**{**REQUEST, "status": 200 + number})
    assert pipe.read() == b""
    with anyio.fail_after(2):
        await anyio.wait_readable(pipe.reader)
    records = pipe.records()
    assert [record["status"] for record in records] == [200, 201, 202, 203, 204]
    assert (records[0]["event"], records[0]["duration_ms"]) == ("http.access", 1.5)
    assert "model" not in records[0]
    assert log.idle


@pytest.mark.anyio
async def test_flush_writes_at_once(pipe: Pipe) -> None:
    log = AccessLog(Sink(pipe.writer.fileno()), write_every=60)
    log.record(**REQUEST)
    log.flush()
    assert len(pipe.records()) == 1
    assert log.idle


@pytest.mark.anyio
async def test_records_wait_for_a_slow_reader_up_to_a_bound(pipe: Pipe) -> None:
    sink = Sink(pipe.writer.fileno())
    while sink.write(b"y" * 4000 + b"\n"):
        pass
    log = AccessLog(sink, write_every=0.01, most=10)
    for _ in range(15):
        log.record(**REQUEST)
    assert log.dropped == 5
    await anyio.sleep(0.03)
    pipe.read()
    with anyio.fail_after(2):
        while not log.idle:
            await anyio.sleep(0.01)
    lines = pipe.read().split(b"\n")
    assert sum(b"http.access" in line for line in lines) == 10


@pytest.mark.anyio
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_s17_a_hostile_path_stays_inside_its_record(pipe: Pipe, text: str) -> None:
    for format_ in ("json", "console"):
        log = AccessLog(Sink(pipe.writer.fileno()), format=format_)  # type: ignore[arg-type]
        log.record(**{**REQUEST, "path": text, "method": text, "client": text})
        log.flush()
        line = pipe.read()
        assert line.count(b"\n") == 1 and len(line) < 30_000
        assert not any(byte < 32 or byte == 127 for byte in line[:-1])
        if format_ == "json":
            json.loads(line)
