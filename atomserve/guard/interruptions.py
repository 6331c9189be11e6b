"""A task cancelled for a reason of our own, told apart from whoever else cancels it.

It speaks to asyncio itself, as `asyncio.timeout` does: a cancel scope around every wait that might
have to be interrupted would cost more than all the rest of the guard together.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Interruption:
    """Cancels ``task`` when it is made; whoever catches that asks for the reason."""

    __slots__ = ("_before", "_reason", "_task")

    def __init__(self, task: asyncio.Task[Any], reason: Exception) -> None:
        self._task = task
        self._reason = reason
        self._before = task.cancelling()
        task.cancel()

    def __repr__(self) -> str:
        return f"<Interruption: {self._reason!r}>"

    @property
    def arrived(self) -> bool:
        """It is the interrupted task that asks."""
        return asyncio.current_task() is self._task

    def take_back(self) -> Exception | None:
        """End the cancellation and return why it was; None: others have cancelled, too."""
        return self._reason if self._task.uncancel() <= self._before else None
