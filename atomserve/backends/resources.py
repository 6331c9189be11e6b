"""Orders to load and unload resources: one after another, in a thread of the worker's slot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from atomserve import control
from atomserve.backends.servable import Resourceful
from atomserve.backends.threads import ThreadSlot
from atomserve.engine.jobs import Form, Payload
from atomserve.errors import AtomError, Busy, Internal, UnsupportedMedia
from atomserve.transport.files import mapped

Order = control.LoadResource | control.UnloadResource

FORMS: dict[str, Form] = {"application/json": "json", "multipart/form-data": "multipart"}
"""How a resource may be written, by its media type."""

log = structlog.get_logger("atomserve.worker")


class ResourceOrders:
    """Has ``holder``, which ``slot`` runs, do what the supervisor says, and reports on it.

    An order takes the place of a job: the wrapper is never entered more often at once.
    """

    def __init__(
        self,
        holder: Resourceful,
        slot: ThreadSlot,
        report: Callable[[control.ResourceDone], None],
    ) -> None:
        self._holder = holder
        self._slot = slot
        self._report = report
        self._waiting: deque[Callable[[], control.ResourceDone]] = deque()
        self._running = False

    def __repr__(self) -> str:
        return f"<ResourceOrders: {len(self._waiting)} waiting>"

    def load(self, order: control.LoadResource, channel: control.Channel[control.Order]) -> None:
        """Load the file that came with ``order`` over ``channel``."""
        try:
            [fd] = channel.descriptors(order.descriptors)
        except control.Lacking as exc:
            self._report(control.ResourceDone(order.number, Busy.code, str(exc)))
            return
        self._take(order, partial(load_file, self._holder, order, fd))

    def unload(self, order: control.UnloadResource) -> None:
        """Forget what was loaded."""
        self._take(order, partial(self._holder.unload_resource, order.resource))

    def _take(self, order: Order, act: Callable[[], None]) -> None:
        self._waiting.append(partial(done, order, act))
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._running:
            self._running = True
            self._slot.do(self._waiting.popleft(), self._over)

    def _over(self, result: control.ResourceDone) -> None:
        self._running = False
        self._report(result)
        self._next()


def load_file(holder: Resourceful, order: control.LoadResource, fd: int) -> None:
    """Have ``holder`` load the file ``fd``, which is closed."""
    memory = mapped(fd, order.size)
    kind = order.media_type.partition(";")[0].strip().lower()
    if kind not in FORMS:
        raise UnsupportedMedia(f"a resource is a form or JSON, not {kind}")
    payload = Payload(
        form=FORMS[kind], body=memoryview(memory).toreadonly(), media_type=order.media_type
    )
    holder.load_resource(order.resource, payload)


def done(order: Order, act: Callable[[], None]) -> control.ResourceDone:
    """Do it, and say how it went."""
    number = order.number
    try:
        act()
    except AtomError as exc:
        return control.ResourceDone(number, exc.code, str(exc))
    except BaseException as exc:  # whatever a plugin does must not end its thread
        log.error("resource.failed", model=order.model, resource=order.resource, exc_info=exc)
        return control.ResourceDone(number, Internal.code, "an internal error; it is in the log")
    return control.ResourceDone(number)
