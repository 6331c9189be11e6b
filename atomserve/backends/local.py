"""The thread backend: a model's slots as threads of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from atomserve.backends.batches import BatchSlot
from atomserve.backends.coroutines import LoopSlot
from atomserve.backends.runner import Runner
from atomserve.backends.servable import Servable
from atomserve.backends.threads import ThreadSlot
from atomserve.engine.backend import Host
from atomserve.engine.loops import Mailbox
from atomserve.engine.options import Options
from atomserve.errors import PluginError
from atomserve.signature import Signature

LocalSlot = ThreadSlot | LoopSlot | BatchSlot


class Opened:
    """The slots of one model, which live as long as this process."""

    def __init__(self, signature: Signature, slots: Sequence[LocalSlot]) -> None:
        self.signature = signature
        self.slots = slots

    async def failure(self) -> str:
        """Never return: a thread cannot be lost."""
        await anyio.sleep_forever()
        raise AssertionError("unreachable")


class ThreadBackend:
    """Opens ``options.slots`` slots, each with a runner of its own from ``make_runner``."""

    def __init__(self, make_runner: Callable[[], Servable], options: Options) -> None:
        self._make_runner = make_runner
        self.options = options

    def sink(self, declared: int | None) -> Gathered:
        """Begin a large body."""
        return Gathered()

    @asynccontextmanager
    async def open(self, host: Host) -> AsyncIterator[Opened]:
        """Start every slot at once; at the end stop them, bounded by ``unload_timeout``."""
        slots: list[LocalSlot] = []
        try:
            runners = [self._make_runner() for _ in range(self.options.slots)]
            for runner in runners:
                slots.append(open_slot(runner, self.options, host.mailbox, host.on_room))
                slots[-1].start()
            await self._loaded(slots)
            yield Opened(runners[0].signature, slots)
        finally:
            await self._stop(slots)

    async def _loaded(self, slots: list[LocalSlot]) -> None:
        try:
            with anyio.fail_after(self.options.startup_timeout):
                for slot in slots:
                    await slot.life.loaded.wait()
                    if slot.life.error is not None:
                        raise slot.life.error
        except TimeoutError as exc:
            raise PluginError(
                f"not loaded within startup_timeout ({self.options.startup_timeout:g} s)"
            ) from exc

    async def _stop(self, slots: list[LocalSlot]) -> None:
        """Stop every slot; one that works for nobody any more, and goes on, is soon given up."""
        for slot in slots:
            slot.stop()
        hung = [slot for slot in slots if slot.busy]
        patience = self.options.unload_timeout
        if len(hung) == len(slots):
            patience = min(patience, self.options.grace)
        with anyio.move_on_after(patience, shield=True):
            for slot in [each for each in slots if each not in hung] or hung:
                await slot.life.ended.wait()


def open_slot(
    runner: Servable, options: Options, mailbox: Mailbox, on_room: Callable[[], None]
) -> LocalSlot:
    """Return the slot that fits ``runner``, not started."""
    if isinstance(runner, Runner) and (runner.batches or runner.is_async):
        kind = BatchSlot if runner.batches else LoopSlot
        return kind(runner, options, mailbox, on_room)
    return ThreadSlot(runner, options, mailbox, on_room)


class Gathered:
    """A large body in this process's own memory."""

    def __init__(self) -> None:
        self._body = bytearray()

    def write(self, piece: bytes | bytearray) -> None:
        self._body += piece

    def close(self) -> bytearray:
        return self._body

    def discard(self) -> None:
        self._body = bytearray()
