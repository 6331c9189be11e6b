"""What a plugin writes to stdout and stderr, as lines of the structured log."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping

import anyio
import structlog

MOST_BYTES = 2048
"""Bytes of a line that are logged; the rest of it is passed over."""
MOST_LINES = 200
"""Lines that one process may log in a second; further ones are counted."""

TURN = 0.05
"""Seconds in which one process may write so much before it has to wait."""
MOST_IN_TURN = 128 * 1024
"""Bytes of one process that are read in a turn: at most 9 % of a core, where lines are short."""

_CHUNK = 65536
_MOST_LEFT = 1024 * 1024  # what an ended process can have left in a pipe, however large that is

log = structlog.get_logger("atomserve.plugin")


class Lines:
    """Cuts any bytes into lines, and keeps no more than the beginning of a long one; no I/O."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take ``data`` and return the lines that it completes; empty ones are left out."""
        # A progress bar ends its lines with a carriage return only.
        *whole, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = rest[: MOST_BYTES + 1]
        return [line for line in whole if line]


def readable(line: bytes) -> str:
    """Return ``line`` as text, shortened, whatever bytes it is made of."""
    text = line[:MOST_BYTES].decode("utf-8", "backslashreplace")
    return f"{text}..." if len(line) > MOST_BYTES else text


class Allowance:
    """How many lines may be logged: ``most`` in each second."""

    def __init__(
        self, most: int = MOST_LINES, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._clock = clock
        self._began = -math.inf
        self._left = most

    def take(self, wanted: int) -> int:
        """Return how many of ``wanted`` lines may be logged now."""
        if self.renews_in <= 0:
            self._began = self._clock()
            self._left = self._most
        granted = min(wanted, self._left)
        self._left -= granted
        return granted

    @property
    def renews_in(self) -> float:
        """Seconds until the next lines may be logged."""
        return self._began + 1.0 - self._clock()


class Pace:
    """How fast one process may be read, so that it costs its reader little: no I/O, no waiting."""

    def __init__(
        self, most: int = MOST_IN_TURN, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._clock = clock
        self._began = -math.inf
        self._taken = 0

    def take(self, size: int) -> float:
        """Count ``size`` bytes that were read; return the seconds to wait before the next."""
        now = self._clock()
        if now - self._began >= TURN:
            self._began, self._taken = now, 0
        self._taken += size
        return self._began + TURN - now if self._taken >= self._most else 0.0


class _Stream:
    def __init__(self, name: str, fd: int) -> None:
        os.set_blocking(fd, False)
        self.name = name
        self.fd = fd
        self.lines = Lines()
        self.dropped = 0


class Output:
    """Reads the pipes of one process, whose reading ends are the caller's to close.

    Who writes never waits for whoever reads the log. Who writes without end waits for us: the pipe
    stays full for as long as `Pace` says. ``facts`` says whose lines these are.
    """

    def __init__(self, pipes: Mapping[str, int], facts: Callable[[], dict[str, object]]) -> None:
        self._streams = [_Stream(name, fd) for name, fd in pipes.items()]
        self._facts = facts
        self._allowance = Allowance()
        self._pace = Pace()

    async def follow(self) -> None:
        """Log what is written until all pipes are closed by whoever writes, or cancelled."""
        async with anyio.create_task_group() as tasks:
            for stream in self._streams:
                tasks.start_soon(self._follow, stream)

    def finish(self) -> None:
        """Log what an ended process has left, without waiting for what it may have started."""
        for stream in self._streams:
            left = _MOST_LEFT
            while left > 0 and (read := self._read(stream)):
                left -= read
            self._write(stream, stream.lines.feed(b"\n"))
            self._tell_dropped(stream)

    async def _follow(self, stream: _Stream) -> None:
        while True:
            patience = self._allowance.renews_in if stream.dropped else math.inf
            with anyio.move_on_after(patience) as scope:
                await anyio.wait_readable(stream.fd)
            if scope.cancelled_caught:
                self._tell_dropped(stream)
            elif (size := self._read(stream)) == 0:
                return
            elif size and (rest := self._pace.take(size)):
                await anyio.sleep(rest)

    def _read(self, stream: _Stream) -> int | None:
        """Log what is there; return the number of bytes, 0 at the end, None for nothing now."""
        try:
            data = os.read(stream.fd, _CHUNK)
        except BlockingIOError:
            return None
        self._write(stream, stream.lines.feed(data))
        return len(data)

    def _write(self, stream: _Stream, lines: list[bytes]) -> None:
        if not lines:
            return
        granted = self._allowance.take(len(lines))
        if granted:
            self._tell_dropped(stream)
        for line in lines[:granted]:
            text = readable(line)
            log.info("plugin.output", **self._facts(), stream=stream.name, text=text)
        stream.dropped += len(lines) - granted

    def _tell_dropped(self, stream: _Stream) -> None:
        if stream.dropped:
            facts = self._facts()
            log.warning("plugin.output_dropped", **facts, stream=stream.name, lines=stream.dropped)
            stream.dropped = 0
