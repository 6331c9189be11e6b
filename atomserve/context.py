"""What a wrapper may ask about the request that it is working on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar


class RawHeaders(Mapping[str, str]):
    """Header names in lower case to their values; of a repeated header, the first.

    Nothing is decoded before somebody asks.
    """

    __slots__ = ("_decoded", "raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.raw = raw
        self._decoded: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            self._decoded = {}
            for name, value in self.raw:
                self._decoded.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        return self._decoded

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class Context:
    """One request, as `current` shows it to a wrapper; read-only there."""

    __slots__ = ("cancelled", "deadline", "headers", "model", "request_id", "shapes", "tenant")

    def __init__(
        self,
        *,
        model: str = "",
        request_id: str = "",
        headers: RawHeaders | None = None,
        deadline: float | None = None,
        tenant: str = "",
    ) -> None:
        self.model = model
        """The name under which the wrapper is served."""
        self.request_id = request_id
        self.headers = RawHeaders() if headers is None else headers
        """The request's headers, names in lower case."""
        self.deadline = deadline
        """When nobody waits any more, on `time.monotonic`'s clock; None is never."""
        self.tenant = tenant
        self.cancelled = False
        """True as soon as nobody waits for the answer."""
        self.shapes: Mapping[str, tuple[int, ...]] = {}
        """In a stacked batch: the shape that each tensor of this request had before."""

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, negative after it; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def __repr__(self) -> str:
        return f"<Context {self.model}: request {self.request_id or '-'}>"


current_context: ContextVar[Context] = ContextVar("atomserve.current")
current_contexts: ContextVar[Sequence[Context]] = ContextVar("atomserve.current_batch")


def current() -> Context:
    """Return the request that the calling wrapper is working on.

    Raises:
        LookupError: called outside of a request, in ``load`` for instance, or in a batch, whatever
            its size.
    """
    if current_contexts.get(None) is not None:
        raise LookupError("predict_batch works on several requests: use atomserve.current_batch()")
    return current_context.get()


def current_batch() -> list[Context]:
    """Return the requests that the running ``predict_batch`` works on, in their order.

    Raises:
        LookupError: called outside of ``predict_batch``.
    """
    try:
        return list(current_contexts.get())
    except LookupError:
        raise LookupError("no batch is being worked on here") from None
