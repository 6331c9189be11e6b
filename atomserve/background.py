"""A whole instance in the background, in processes of its own, for as long as a block.

    python -m atomserve.background FD

reads what to serve on its standard input, stops at the end of that, and tells by ``FD``, in JSON
lines, how its start goes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from atomserve.errors import NotReady, PluginError
from atomserve.plugins import Source
from atomserve.settings import Settings
from atomserve.supervisor import supervisor
from atomserve.supervisor.events import Bound, Event, Failed, ModelChanged, Ready

MARGIN = 5.0
"""Seconds that an instance gets to end beyond all that it grants its requests and models."""


class Order(msgspec.Struct, frozen=True):
    """What to serve."""

    settings: Settings
    sources: tuple[Source, ...]


class Started(msgspec.Struct, frozen=True):
    """How a start went: where it answers, or why it does not."""

    url: str = ""
    failure: str = ""


@contextmanager
def running(settings: Settings, sources: Sequence[Source], *, timeout: float) -> Iterator[str]:
    """Serve ``sources`` and give the address once all are ready.

    Raises:
        PluginError: one cannot be imported, validated or loaded, or the settings cannot be used.
        NotReady: they did not load within ``timeout`` seconds.
    """
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "atomserve.background", str(theirs)]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=(theirs,),
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # a terminal's Ctrl-C is for the tests
        )
    finally:
        os.close(theirs)
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(Order(settings, tuple(sources))) + b"\n")
        process.stdin.flush()
        yield _address(ours, timeout)
    finally:
        os.close(ours)
        process.stdin.close()
        grants = settings.drain_timeout + 2 * settings.unload_timeout
        try:
            process.wait(grants + MARGIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(fd: int, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    heard = b""
    while not heard.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise NotReady(f"not loaded within {timeout:g} s")
        if not (piece := os.read(fd, 65536)):
            raise PluginError("the instance ended before it was ready")
        heard += piece
    started = msgspec.json.decode(heard, type=Started)
    if started.failure:
        raise PluginError(started.failure)
    return started.url


def main() -> int:
    """Serve what standard input says, until its end."""
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_stop_at_the_end, daemon=True).start()
    return supervisor.run(order.settings, order.sources, on_event=_Teller(fd))


def _stop_at_the_end() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)


class _Teller:
    """Tells once how the start went: nobody listens afterwards."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._url = ""
        self._told = False

    def __call__(self, event: Event) -> None:
        match event:
            case Bound(urls):
                self._url = urls[0]
            case Ready():
                self._tell(Started(url=self._url))
            case Failed(message, _):
                self._tell(Started(failure=message))
            case ModelChanged(_, _, "failed", detail):
                self._tell(Started(failure=detail))

    def _tell(self, started: Started) -> None:
        if not self._told:
            self._told = True
            os.write(self._fd, msgspec.json.encode(started) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
