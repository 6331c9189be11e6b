"""What ties a child process to its supervisor: it dies with it, obeys it alone, leaves at once."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def hold() -> None:
    """Die with the parent, and leave a terminal's and an operator's signals to it.

    Handlers that do nothing, not SIG_IGN: what a plugin starts would inherit that.
    """
    if sys.platform == "linux":
        set_pdeathsig = 1
        ctypes.CDLL(None).prctl(set_pdeathsig, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _nothing)


def _nothing(*_: object) -> None:
    pass


def leave(code: int) -> NoReturn:
    """End the process without waiting for any thread: a plugin's may never return."""
    try:
        # Nobody is left to be told, and a plugin may have put anything in their places.
        with suppress(Exception):
            logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
    finally:
        os._exit(code)
