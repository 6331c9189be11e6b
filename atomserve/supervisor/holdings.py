"""The resources that one worker has loaded, as far as it has said."""

from __future__ import annotations

import itertools

import anyio

from atomserve import control
from atomserve.supervisor.children import Child


class Resource:
    """What was given to be loaded: a file that nobody can change any more, open as ``fd``."""

    def __init__(self, order: control.LoadResource, fd: int) -> None:
        self.order = order
        self.fd = fd
        self.unloading = False
        """Some worker has not unloaded it; none loads it any more."""

    def __repr__(self) -> str:
        return f"<Resource {self.name} of {self.order.model}: {self.order.size} bytes>"

    @property
    def name(self) -> str:
        return self.order.resource


class Holdings:
    """Asks a worker to load and unload; also an answer that comes late is believed."""

    def __init__(self, child: Child) -> None:
        self.names: set[str] = set()
        self._child = child
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<Holdings: {len(self.names)} loaded, {len(self._asked)} asked>"

    async def load(self, resource: Resource) -> control.ResourceDone | None:
        """Have ``resource`` loaded; None if the worker ends before it says."""
        order = resource.order
        number = next(self._numbers)
        again = control.LoadResource(
            number, order.model, order.resource, order.media_type, order.size
        )
        return await self._ask(number, again, _Asked(resource.name, loads=True), resource.fd)

    async def unload(self, resource: Resource) -> control.ResourceDone | None:
        """Have ``resource`` unloaded; None if the worker ends before it says."""
        number = next(self._numbers)
        order = control.UnloadResource(number, resource.order.model, resource.name)
        return await self._ask(number, order, _Asked(resource.name, loads=False))

    def hear(self, done: control.ResourceDone) -> None:
        """Take the worker's answer."""
        asked = self._asked.pop(done.number, None)
        if asked is None:
            return
        if not done.code:
            (self.names.add if asked.loads else self.names.discard)(asked.name)
        asked.done = done
        asked.over.set()

    def close(self) -> None:
        """Expect no more answers: the worker has ended."""
        self._closed = True
        self.names.clear()
        for asked in self._asked.values():
            asked.over.set()

    async def _ask(
        self, number: int, order: control.Order, asked: _Asked, *descriptors: int
    ) -> control.ResourceDone | None:
        if self._closed:
            return None
        self._asked[number] = asked
        self._child.post(order, descriptors)
        await asked.over.wait()
        return asked.done


class _Asked:
    """An order that was given, and its answer."""

    def __init__(self, name: str, *, loads: bool) -> None:
        self.name = name
        self.loads = loads
        self.over = anyio.Event()
        self.done: control.ResourceDone | None = None
