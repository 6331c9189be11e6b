"""What owns slots, seen from the engine: the one protocol that threads and processes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from atomserve.jobs import Job
from atomserve.signature import Signature


class Slot(Protocol):
    """One running copy of a wrapper.

    ``run`` is called on the event loop and returns at once; the jobs' replies are ended there
    later. ``room`` says how many more jobs it takes now; ``on_room``, set by the engine, is called
    on the loop whenever that grew.
    """

    on_room: Callable[[], None]

    @property
    def room(self) -> int: ...

    def run(self, jobs: Sequence[Job]) -> None: ...

    def abandon(self, job: Job) -> None:
        """Nobody waits for ``job`` any more: stop it if that is possible."""


class Backend(Protocol):
    """Opens the slots of one model and closes them again."""

    def open(self) -> AbstractAsyncContextManager[tuple[Signature, Sequence[Slot]]]:
        """Start every slot: load, then examples.

        Raises:
            PluginError: the wrapper cannot be loaded; the message names plugin and cause.
        """
