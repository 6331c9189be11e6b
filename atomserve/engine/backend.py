"""What owns slots, seen from the engine: the one protocol that threads and processes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from atomserve.engine.jobs import Holder, Job
from atomserve.engine.loops import Mailbox
from atomserve.engine.options import Options
from atomserve.signature import Signature


class Slot(Holder, Protocol):
    """One running copy of a wrapper.

    ``run`` is called on the event loop and returns at once; the jobs' replies are ended there
    later. ``room`` says how many more jobs it takes now.
    """

    @property
    def room(self) -> int: ...

    def run(self, jobs: Sequence[Job]) -> None: ...


class Opened(msgspec.Struct, frozen=True):
    """A model ready to work."""

    signature: Signature
    slots: Sequence[Slot]


class Backend(Protocol):
    """Opens the slots of one model and closes them again."""

    options: Options

    def open(
        self, mailbox: Mailbox, on_room: Callable[[], None]
    ) -> AbstractAsyncContextManager[Opened]:
        """Start every slot: load, then examples; stop them at the end, bounded.

        ``on_room`` is called on the loop whenever a slot's room grew.

        Raises:
            PluginError: the wrapper cannot be loaded; the message names model and cause.
        """
