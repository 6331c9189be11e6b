"""What each slot gets at the end of a turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atomserve.engine.backend import Slot
from atomserve.engine.jobs import Job
from atomserve.engine.lanes import Lane

Waited = Callable[[float], object]


def deal(lane: Lane, slots: Sequence[Slot], now: float, waited: Waited) -> None:
    """Give ``slots``, in their order, what of ``lane`` they have room for.

    ``waited`` is told how long each job waited, in seconds.
    """
    if lane.batching is not None:
        _deal_batches(lane, slots, now, waited)
        return
    free = [(slot, room) for slot in slots if (room := slot.room) > 0]
    for index, (slot, room) in enumerate(free):
        share = -(-len(lane) // (len(free) - index))
        if batch := lane.take(min(room, share), now):
            _hand(slot, batch, now, waited)
        if not lane:
            return


def _deal_batches(lane: Lane, slots: Sequence[Slot], now: float, waited: Waited) -> None:
    """Give each free slot a batch that is ready to go, then send full ones ahead."""
    lane.due = None
    lane.settle(now)
    for slot in slots:
        while slot.room > 0 and (batch := lane.cut(now, slot, free=True)):
            _hand(slot, batch, now, waited)
    due = lane.due
    if not lane:
        return
    for slot in slots:
        while slot.room <= 0 and slot.ahead > 0 and (batch := lane.cut(now, slot, free=False)):
            _hand(slot, batch, now, waited)
    lane.due = due


def _hand(slot: Slot, jobs: Sequence[Job], now: float, waited: Waited) -> None:
    for job in jobs:
        waited(now - job.arrived)
    slot.run(jobs)
