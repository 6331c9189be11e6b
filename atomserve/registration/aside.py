"""Blocking work that may never end, done beside the event loop and given up on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TypeVar

import anyio

R = TypeVar("R")

MOST = 4
"""Threads that may be stuck; more are of no use where these are."""

_places = threading.BoundedSemaphore(MOST)


async def aside(function: Callable[..., R], *args: object) -> R:
    """Return ``function(*args)``, called in a thread; whoever is cancelled leaves that behind.

    AnyIO's threads, and asyncio's, keep a process from ending while they are stuck: looking up a
    name takes as long as the resolver likes. This one is a daemon.

    Raises:
        OSError: too many such threads are stuck already.
    """
    if not _places.acquire(blocking=False):
        raise OSError("the system does not answer")
    outcome: list[R] = []
    failure: list[Exception] = []
    ours, theirs = socket.socketpair()

    def work() -> None:
        try:
            outcome.append(function(*args))
        except Exception as exc:  # noqa: BLE001 - it is raised where somebody waits for it
            failure.append(exc)
        finally:
            _places.release()
            theirs.close()  # which the other end hears

    with ours:
        try:
            threading.Thread(target=work, name="aside", daemon=True).start()
        except RuntimeError as exc:
            _places.release()
            theirs.close()
            raise OSError(f"no thread can be started: {exc}") from exc
        await anyio.wait_readable(ours)
    if failure:
        raise failure[0]
    return outcome[0]
