"""Log files of a day and a size, which any number of processes write together.

    FOLDER/HOST/20260131-0001-NAME.log

A full file is followed by the next number, and none is ever renamed: so there is nothing to agree
on, and no lock. Each process appends whole lines (O_APPEND puts each write at the end as one) to
the newest file that has room. The host's own folder keeps apart machines that share a disk.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def today() -> str:
    """Return the day as it is in file names, by the local clock."""
    return time.strftime("%Y%m%d")


class LogFiles:
    """The files of one name; at most ``keep`` of them, the newest, are left."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        max_bytes: int,
        keep: int,
        day: Callable[[], str] = today,
    ) -> None:
        self._folder = folder
        self._name = name
        self._max_bytes = max_bytes
        self._keep = keep
        self._today = day
        self._pattern = re.compile(rf"([0-9]{{8}})-([0-9]{{4,}})-{re.escape(name)}\.log")
        self._fd: int | None = None
        self._place = ("", 0)
        self._torn = False

    def write(self, lines: bytes) -> None:
        """Append whole lines; raises OSError, after which some may be there."""
        fd = self._file_with_room(len(lines))
        if self._torn:
            lines = b"\n" + lines
        self._torn = True
        left = memoryview(lines)
        while left:
            left = left[os.write(fd, left) :]
        self._torn = False

    def close(self) -> None:
        """Close what is open; the next write opens anew."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _file_with_room(self, size: int) -> int:
        day = self._today()
        if self._fd is None or self._place[0] != day:
            self._open(day, max((number for _, number in self._there(day)), default=1))
        while True:
            fd = self._fd
            assert fd is not None
            found = os.fstat(fd)
            if not found.st_nlink:  # removed behind our back
                self._open(*self._place)
            elif not found.st_size or found.st_size + size <= self._max_bytes:
                return fd
            else:
                self._open(day, self._place[1] + 1)

    def _open(self, day: str, number: int) -> None:
        self.close()
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._fd = os.open(self._path(day, number), _FLAGS, 0o640)
        self._place = (day, number)
        for old in sorted(self._there())[: -self._keep]:
            with suppress(OSError):
                self._path(*old).unlink()

    def _path(self, day: str, number: int) -> Path:
        return self._folder / f"{day}-{number:04d}-{self._name}.log"

    def _there(self, day: str = "") -> list[tuple[str, int]]:
        """Return the day and number of each file, of ``day`` alone if that is given."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        found = [match for match in map(self._pattern.fullmatch, names) if match]
        return [(match[1], int(match[2])) for match in found if day in ("", match[1])]
