"""Loggers that never fail: what is logged goes where the process's logging sends it."""

from __future__ import annotations

import logging
import os
import tempfile
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

_PLACES = ("/log/app", "log")
"""Where AIGES images kept logs, and the wrapper's own folder."""
_FILE_NAME = "aiges.file"

log = logging.getLogger("aiges")


def getLogger(name: Any = None, *_: Any, **__: Any) -> logging.Logger:
    """Return the logger called ``name``, or the one that all wrappers share."""
    return logging.getLogger(name) if isinstance(name, str) and name else log


def getFileLogger(*_: Any, **__: Any) -> logging.Logger:
    """Return a logger that also writes a file: in ``/log/app``, ``./log`` or a temporary folder.

    The file is made with the first line. Where none can be written, lines go to the log alone.
    """
    logger = logging.getLogger(_FILE_NAME)
    if not logger.handlers:
        logger.setLevel(logging.INFO)
        logger.addHandler(_File())
    return logger


def show_here() -> None:
    """Let what is logged be seen where nobody has set up logging: in a script run by hand."""
    if not log.hasHandlers():
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)


class _File(RotatingFileHandler):
    def __init__(self) -> None:
        super().__init__(os.devnull, maxBytes=10 << 20, backupCount=3, delay=True, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(funcName)s: %(message)s"))

    def _open(self) -> TextIOWrapper:
        if self.baseFilename == os.devnull:
            self.baseFilename = _writable(f"aiges-{os.getpid()}.log")
        return super()._open()

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        if self.stream is None:
            self.stream = self._open()
        return self.baseFilename != os.devnull and bool(super().shouldRollover(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """Write no more: a full disk must not fill stderr with tracebacks."""
        self.setLevel(logging.CRITICAL + 1)


def _writable(name: str) -> str:
    for place in (*_PLACES, tempfile.gettempdir()):
        folder = Path(place)
        try:
            if not folder.is_absolute():
                folder.mkdir(exist_ok=True)
            path = folder.absolute() / name
            with path.open("a"):
                return str(path)
        except OSError:
            continue
    return os.devnull
