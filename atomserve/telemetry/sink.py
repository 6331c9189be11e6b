"""One descriptor for the lines of all who log, which never blocks on a pipe nor raises."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Callable


class Sink:
    """Where lines go. A pipe is not waited for: what does not fit is written with what follows.

    ``also`` gets all lines, too, each once; it must neither wait nor raise.
    """

    def __init__(self, fd: int, also: Callable[[bytes], None] | None = None) -> None:
        self._also = also
        self._pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        # Another open file description, since O_NONBLOCK would hold for whoever shares the pipe.
        self._own = _reopen(fd) if self._pipe else None
        self._fd = fd if self._own is None else self._own
        self._rest = b""
        self._lock = threading.Lock()
        self.lost = 0
        """Lines that nobody will read."""

    @property
    def stuck(self) -> bool:
        """Whether something that was taken is still to be written."""
        return bool(self._rest)

    def write(self, lines: bytes) -> bool:
        """Write whole lines; return False, having taken nothing, while the reader is behind."""
        with self._lock:
            if self._rest:
                self._push(self._rest)
            if self._rest:
                return False
            self._push(lines)
        self._tell(lines)
        return True

    def line(self, text: bytes) -> None:
        """Write one line, or count it as lost."""
        if not self.write(text + b"\n"):
            self.lost += 1
            self._tell(text + b"\n")

    def close(self) -> None:
        """Close what this sink opened itself."""
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def _tell(self, lines: bytes) -> None:
        if self._also is not None and lines:
            self._also(lines)

    def _push(self, data: bytes) -> None:
        try:
            while data:
                # Up to PIPE_BUF a pipe takes all or nothing, so that processes do not mix lines.
                end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1 if self._pipe else 0
                data = data[os.write(self._fd, data[:end] if end else data) :]
        except BlockingIOError:
            pass
        except OSError:  # the reader is gone, the disk is full: serving goes on
            self.lost += data.count(b"\n")
            data = b""
        self._rest = data


def _reopen(fd: int) -> int | None:
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
