"""What wrappers have counted themselves, kept when their workers end: sums must not fall."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from atomserve.telemetry.counters import MOST, Snapshot, folded, merge
from atomserve.telemetry.instance import WorkerDocument


class Figures:
    """The figures of all workers; of one that is silent or gone, those that it told last."""

    def __init__(self) -> None:
        self._known: dict[Any, list[Snapshot]] = {}
        self._departed: list[Snapshot] = []

    def __repr__(self) -> str:
        return f"<Figures of {len(self._known)} workers>"

    def hear(self, documents: Mapping[Any, msgspec.Raw], running: Collection[Any]) -> None:
        """Take what ``running`` workers say in ``documents``; who runs no more has departed."""
        for worker in [worker for worker in self._known if worker not in running]:
            self._departed = _merged([self._departed, self._known.pop(worker)])
        for worker in running:
            if worker in documents:
                self._known[worker] = _families(documents[worker])

    def total(self) -> list[Snapshot]:
        """Return all figures, added up."""
        return _merged([self._departed, *self._known.values()])


def _merged(all_told: Iterable[list[Snapshot]]) -> list[Snapshot]:
    return [folded(family, MOST) for family in merge(all_told)]


def _families(document: msgspec.Raw) -> list[Snapshot]:
    try:
        return msgspec.json.decode(document, type=WorkerDocument).families
    except msgspec.DecodeError:
        return []
