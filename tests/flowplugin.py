"""Plugins that note in a file what happens to them, and when."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve import Tensor, Wrapper, current, current_batch

Floats = Annotated[NDArray[np.float32], Tensor("float32", (-1,))]
PATIENCE = 15.0
"""Seconds after which a plugin ends that waits for its client to leave."""


class Noting(Wrapper):
    """Writes notes: what happened, to which token, and when."""

    timeout = 60.0

    def load(self, config: dict[str, Any]) -> None:
        self.config = config
        self._notes = os.open(config["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, what: str, token: str) -> None:
        os.write(self._notes, f"{what} {token} {time.monotonic()}\n".encode())

    def open_gate(self) -> None:
        """Wait, in the system, for somebody to open the gate for writing."""
        Path(self.config["gate"]).open("rb").close()


class Work(Noting):
    """Sleep, or wait at the gate, and answer with the token."""

    def predict(self, seconds: float = 0, token: str = "", gate: bool = False) -> str:
        self.note("began", token)
        if gate:
            self.open_gate()
        time.sleep(seconds)
        return token


class Size(Wrapper):
    """Answer with how long the tensor is; a large one takes ``config.seconds``."""

    def load(self, config: dict[str, Any]) -> None:
        self._seconds = float(config.get("seconds", 0))

    def predict(self, tensor: Floats) -> int:
        if tensor.size > 1_000_000:
            time.sleep(self._seconds)
        return int(tensor.size)


class Ask(msgspec.Struct):
    token: str = ""
    seconds: float = 0
    gate: bool = False
    bad: bool = False
    deaf: bool = False


class Told(msgspec.Struct):
    token: str
    size: int
    waited: float
    """Seconds from the request's arrival to the call."""
    idle: float
    """Those of them in which no call ran."""


class Batch(Noting):
    """Sleep as long as the longest of the batch; ``config.fault`` says what is done wrongly."""

    def load(self, config: dict[str, Any]) -> None:
        super().load(config)
        self.fault = config.get("fault", "")
        self.ran: list[tuple[float, float]] = []

    def predict_batch(self, requests: list[Ask]) -> list[Told]:
        if self.fault == "tardy":
            time.sleep(0.3)
        began = time.monotonic()
        self.note("began", f"{len(requests)}")
        if any(each.gate for each in requests):
            self.open_gate()
        if any(each.bad for each in requests):
            raise ValueError("a bad item")
        told = [
            Told(each.token, len(requests), *self._waited(context.deadline, began))
            for each, context in zip(requests, current_batch(), strict=True)
        ]
        time.sleep(max(each.seconds for each in requests))
        self.ran = [*self.ran[-8:], (began, time.monotonic())]
        return told[::-1] if self.fault == "crossed" else told

    def _waited(self, deadline: float | None, began: float) -> tuple[float, float]:
        assert deadline is not None
        arrived = deadline - self.timeout
        busy = sum(max(0.0, end - max(start, arrived)) for start, end in self.ran)
        return began - arrived, began - arrived - busy


# For clients that leave.


class Left(Noting):
    """Wait until nobody waits any more; deaf, look away for two seconds first."""

    def predict(self, token: str = "", deaf: bool = False) -> str:
        self.note("began", token)
        time.sleep(2.0 if deaf else 0.0)
        until = time.monotonic() + PATIENCE
        while not current().cancelled and time.monotonic() < until:
            time.sleep(0.002)
        self.note("left" if current().cancelled else "stayed", token)
        return token


class LeftAsync(Noting):
    async def predict(self, token: str = "", deaf: bool = False) -> str:
        self.note("began", token)
        time.sleep(2.0 if deaf else 0.0)
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            self.note("left", token)
            raise
        self.note("stayed", token)
        return token


class LeftStream(Noting):
    def predict(self, token: str = "", deaf: bool = False) -> Iterator[str]:
        self.note("began", token)
        until = time.monotonic() + PATIENCE
        try:
            yield token
            time.sleep(2.0 if deaf else 0.0)
            while time.monotonic() < until:
                time.sleep(0.002)
                yield token
            self.note("stayed", token)
        except GeneratorExit:
            self.note("left", token)
            raise


class LeftAsyncStream(Noting):
    async def predict(self, token: str = "", deaf: bool = False) -> AsyncIterator[str]:
        self.note("began", token)
        time.sleep(2.0 if deaf else 0.0)
        until = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < until:
                yield token
                await asyncio.sleep(0.002)
            self.note("stayed", token)
        except (asyncio.CancelledError, GeneratorExit):
            self.note("left", token)
            raise


class LeftBatch(Noting):
    def predict_batch(self, requests: list[Ask]) -> list[str]:
        """Wait until nobody waits for any of the batch."""
        for each in requests:
            self.note("began", each.token)
        left = dict(zip((each.token for each in requests), current_batch(), strict=True))
        time.sleep(2.0 if any(each.deaf for each in requests) else 0.0)
        until = time.monotonic() + PATIENCE
        while left and time.monotonic() < until:
            for token in [token for token, context in left.items() if context.cancelled]:
                self.note("left", token)
                del left[token]
            time.sleep(0.002)
        return [each.token for each in requests]


class Destroying(Wrapper):
    """Drop a task that is not done, as a server must not."""

    def predict(self) -> str:
        loop = asyncio.new_event_loop()
        waiting = asyncio.sleep(1)
        task = loop.create_task(waiting)
        loop.close()
        del task, loop
        waiting.close()
        gc.collect()
        return "destroyed"
