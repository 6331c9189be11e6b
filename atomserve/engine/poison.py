"""Requests that were found to kill their worker, remembered for a while by their digests."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NamedTuple

import msgspec

from atomserve.engine.digests import digest
from atomserve.engine.jobs import Form, Payload

REMEMBERED = 60.0
"""Seconds for which a request is refused that was found guilty: not long, since one that ran alone
whenever somebody else killed its worker is found guilty too."""
MOST = 1024
"""Guilty requests that one model remembers."""


class Kind(NamedTuple):
    """What equal requests have in common at a glance: a large body takes long to digest."""

    form: Form
    length: int


class Poison:
    """The digests of guilty requests; the oldest make room for new ones."""

    __slots__ = ("_kinds", "_known")

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, Kind]] = OrderedDict()
        """Until when, and of which kind."""
        self._kinds: Counter[Kind] = Counter()

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<Poison: {len(self)} requests>"

    def add(self, payload: Payload, now: float) -> None:
        """Remember ``payload`` from ``now`` on; one that the codec will refuse does no harm."""
        key = _key(payload)
        if key is None:
            return
        if key in self._known:
            self._forget(key)
        kind = _kind(payload)
        self._known[key] = now + REMEMBERED, kind
        self._kinds[kind] += 1
        if len(self._known) > MOST:
            self._forget(next(iter(self._known)))

    def holds(self, payload: Payload, now: float) -> bool:
        """Say whether one like ``payload``, of the same length, is remembered at ``now``."""
        while self._known:
            key, (until, _) = next(iter(self._known.items()))
            if until > now:
                break
            self._forget(key)
        return _kind(payload) in self._kinds and _key(payload) in self._known

    def _forget(self, key: bytes) -> None:
        _, kind = self._known.pop(key)
        self._kinds[kind] -= 1
        if not self._kinds[kind]:
            del self._kinds[kind]


def _kind(payload: Payload) -> Kind:
    return Kind(payload.form, len(payload.body))


def _key(payload: Payload) -> bytes | None:
    """Return the digest of what is asked, however it is to be answered."""
    return digest(msgspec.structs.replace(payload, answer="json", answer_type=""), "")
