"""All models that are served, in one task group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import anyio.abc

from atomserve.engine.backend import Backend
from atomserve.engine.loops import Mailbox
from atomserve.engine.models import Model
from atomserve.errors import Draining, ModelNotFound, NotReady

Watcher = Callable[[str, str, str], None]


class Guest(Protocol):
    """What is served beside the models, and counts like one of them: a hosted app."""

    name: str

    @property
    def state(self) -> str: ...

    @property
    def detail(self) -> str: ...

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher`` with name, state and detail at each change."""


class Engine:
    """Serves models while it runs; start-up does not wait for their loading.

    ``expected`` is how many models there will be when all have been added. Ready means, by
    ``readiness``: ``all`` models are ready, or ``any`` is.
    """

    def __init__(self, *, expected: int, readiness: str = "all") -> None:
        self._expected = expected
        self._readiness = readiness
        self._watchers: list[Watcher] = []
        self._tasks: anyio.abc.TaskGroup | None = None
        self._mailbox: Mailbox
        self.draining = False
        self.models: dict[str, Model] = {}
        self.guests: list[Guest] = []

    def __repr__(self) -> str:
        return f"<Engine: {', '.join(map(repr, self.models.values()))}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the models until the end of the block; then stop every slot, bounded."""
        self._mailbox = Mailbox()
        async with anyio.create_task_group() as self._tasks:
            for model in self.models.values():
                self._tasks.start_soon(model.serve, self._mailbox)
            try:
                yield
            finally:
                self.abort()
                self._tasks.cancel_scope.cancel()

    def add(self, name: str, backend: Backend) -> Model:
        """Serve one more model."""
        model = self.models[name] = Model(name, backend, self._changed)
        if self._tasks is not None:
            self._tasks.start_soon(model.serve, self._mailbox)
        return model

    def welcome(self, guest: Guest) -> None:
        """Count one more guest."""
        self.guests.append(guest)
        guest.watch(self._tell)

    def model(self, name: str) -> Model:
        """Return the model served as ``name``.

        Raises:
            ModelNotFound: there is none.
            NotReady: there may be one soon.
        """
        try:
            return self.models[name]
        except KeyError:
            if len(self.models) < self._expected:
                raise NotReady("the models are loading", retry_after=1.0) from None
            raise ModelNotFound(f"no model {name!r} is served here") from None

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher`` with name, state and detail whenever a model's state changes."""
        self._watchers.append(watcher)

    def states(self) -> dict[str, tuple[str, str]]:
        """Return each model's state and detail, by name."""
        return {name: (model.state, model.detail) for name, model in sorted(self.models.items())}

    @property
    def started(self) -> bool:
        """Nothing is loading any more."""
        loading = any(each.state == "loading" for each in self._served)
        return len(self.models) >= self._expected and not loading

    @property
    def ready(self) -> bool:
        """Requests are welcome."""
        if self.draining or len(self.models) < self._expected:
            return False
        states = [each.state == "ready" for each in self._served]
        return all(states) if self._readiness == "all" else any(states)

    @property
    def _served(self) -> list[Model | Guest]:
        return [*self.models.values(), *self.guests]

    def abort(self) -> None:
        """Take no job any more; whatever is on its way fails as `Draining`."""
        for model in self.models.values():
            model.close(Draining())

    def _changed(self, model: Model) -> None:
        self._tell(model.name, model.state, model.detail)

    def _tell(self, name: str, state: str, detail: str) -> None:
        for watcher in self._watchers:
            watcher(name, state, detail)
