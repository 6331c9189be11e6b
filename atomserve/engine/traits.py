"""What of a request's content decides which batch it may join: its key and its cost."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Protocol

import msgspec

from atomserve.engine.jobs import Job
from atomserve.engine.options import Options

BYTES = "bytes"
"""As ``batch_cost``: the size of the request's body."""

UNREADABLE = (msgspec.MsgspecError, RecursionError, OverflowError, TypeError, ValueError)
"""What reading may raise for bytes that a client chose: no UTF-8, too deep, too large a number."""


class Decoder(Protocol):
    def decode(self, buf: Any, /) -> Any: ...


class Traits:
    """Reads key and cost of the jobs of one model, where they can be read without its plugin.

    What cannot be read, in a form or a body too large to be looked into here, has no key: the
    slot, which decodes it, groups by the key once more.
    """

    def __init__(self, options: Options) -> None:
        self._key = options.batch_key
        self._cost = "" if options.batch_cost == BYTES else options.batch_cost
        self._bytes = options.batch_cost == BYTES
        self._most = options.max_batch_cost or math.inf
        names = [name for name in {self._key, self._cost} if name]
        named = msgspec.defstruct("Named", [(name, Any, None) for name in names])
        self._decoders: dict[str, Decoder] = {}
        if names:
            self._decoders["json"] = msgspec.json.Decoder(named)
            self._decoders["msgpack"] = msgspec.msgpack.Decoder(named)

    def __bool__(self) -> bool:
        """Say whether there is anything to read."""
        return self._bytes or bool(self._decoders)

    def mark(self, job: Job) -> None:
        """Set ``job.key`` and ``job.cost``."""
        body = job.payload.body
        if self._bytes:
            job.cost = min(float(max(1, len(body))), self._most)
        decoder = self._decoders.get(job.payload.form)
        if decoder is None or not isinstance(body, bytes | bytearray | memoryview):
            return
        try:
            named = decoder.decode(body)
            key = _hashable(getattr(named, self._key)) if self._key else None
            # More than a batch may cost says no more: it goes alone. And the client chose it.
            cost = (
                min(_positive(getattr(named, self._cost)), self._most) if self._cost else job.cost
            )
        except UNREADABLE:
            return  # The slot says better what is wrong with it.
        job.key, job.cost = key, cost


def _hashable(value: Any) -> Hashable:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return msgspec.json.encode(value, order="deterministic")


def _positive(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 < value < math.inf else 1.0
