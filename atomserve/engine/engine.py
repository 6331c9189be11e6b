"""All models that are served, in one task group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio

from atomserve.engine.backend import Backend
from atomserve.engine.loops import Mailbox
from atomserve.engine.models import Model
from atomserve.errors import Draining, ModelNotFound

Watcher = Callable[[str, str, str], None]


class Engine:
    """Serves ``backends`` (by model name) while it runs; start-up does not wait for loading.

    Ready means, by ``readiness``: ``all`` models are ready, or ``any`` is.
    """

    def __init__(self, backends: Mapping[str, Backend], *, readiness: str = "all") -> None:
        self._watchers: list[Watcher] = []
        self._readiness = readiness
        self.draining = False
        self.models = {
            name: Model(name, backend, self._changed) for name, backend in backends.items()
        }

    def __repr__(self) -> str:
        return f"<Engine: {', '.join(map(repr, self.models.values()))}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the models until the end of the block; then stop every slot, bounded."""
        mailbox = Mailbox()
        async with anyio.create_task_group() as tasks:
            for model in self.models.values():
                tasks.start_soon(model.serve, mailbox)
            try:
                yield
            finally:
                self.abort()
                tasks.cancel_scope.cancel()

    def model(self, name: str) -> Model:
        """Return the model served as ``name``.

        Raises:
            ModelNotFound: there is none.
        """
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(f"no model {name!r} is served here") from None

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher`` with name, state and detail whenever a model's state changes."""
        self._watchers.append(watcher)

    def states(self) -> dict[str, tuple[str, str]]:
        """Return each model's state and detail."""
        return {model.name: (model.state, model.detail) for model in self.models.values()}

    @property
    def started(self) -> bool:
        """No model is loading any more."""
        return all(model.state != "loading" for model in self.models.values())

    @property
    def ready(self) -> bool:
        """Requests are welcome."""
        states = [model.state == "ready" for model in self.models.values()]
        return not self.draining and (all(states) if self._readiness == "all" else any(states))

    def abort(self) -> None:
        """Take no job any more; whatever is on its way fails as `Draining`."""
        for model in self.models.values():
            model.close(Draining())

    def _changed(self, model: Model) -> None:
        for watcher in self._watchers:
            watcher(model.name, model.state, model.detail)
