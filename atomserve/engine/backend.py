"""What owns slots, seen from the engine: the one protocol that threads and processes share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from atomserve.engine.jobs import Body, Holder, Job
from atomserve.engine.loops import Mailbox
from atomserve.engine.options import Options
from atomserve.signature import Signature


class Slot(Holder, Protocol):
    """One running copy of a wrapper.

    ``run`` is called on the event loop and returns at once; the jobs' replies are ended there
    later. ``room`` says how many more jobs it takes now, ``busy`` how many it has. Of a batch
    model the jobs of one call are one batch, and ``room`` counts batches; ``ahead`` more of them,
    if they are full, may be sent although nothing is free.
    """

    @property
    def room(self) -> int: ...

    @property
    def ahead(self) -> int: ...

    @property
    def busy(self) -> int: ...

    def run(self, jobs: Sequence[Job]) -> None: ...


class Sink(Protocol):
    """Takes a large request body piece by piece, to where its slot can read it."""

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next piece.

        Raises:
            ArenaFull: there is no room for it.
        """

    def close(self) -> Body | bytearray:
        """Return the whole body; the caller gives it back, with its job."""

    def discard(self) -> None:
        """Give back what was written; the body will not be complete."""


class Host(Protocol):
    """The model, as its backend sees it; called on the loop."""

    mailbox: Mailbox

    def on_room(self) -> None:
        """A slot's room grew, or the slots are not the same any more."""

    def lost(self, begun: Sequence[Job], waiting: Sequence[Job]) -> bool:
        """A slot is gone with the jobs that it had: those it may have run, those it did not.

        Returns whether one of the jobs is looked for that the slot was lost by.
        """


class Opened(Protocol):
    """A model at work."""

    signature: Signature

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots that there are now; none while a lost one is replaced."""

    async def failure(self) -> str:
        """Wait until the model has failed for good, and say why."""


class Backend(Protocol):
    """Opens the slots of one model and closes them again."""

    options: Options

    def open(self, host: Host) -> AbstractAsyncContextManager[Opened]:
        """Start every slot: load, then examples; stop them at the end, bounded.

        Raises:
            PluginError: the wrapper cannot be loaded; the message names model and cause.
        """

    def sink(self, declared: int | None) -> Sink:
        """Begin a large body, of ``declared`` bytes if that is known; raises as `Sink` does."""
