"""What a slot with threads asks of what it runs, whichever loader it comes from."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from atomserve.engine.jobs import Answer, AnswerForm, Payload
from atomserve.signature import Signature
from atomserve.wrapper import Example


class Inlet(Protocol):
    """What a session's client sends, for the thread that serves it."""

    def __iter__(self) -> Iterator[Payload]:
        """Wait for each item in turn, until the last."""

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the next item, or for what was `put`; None after the last item.

        A None may come more than once: also when nobody waits for answers any more.

        Raises:
            queue.Empty: there was nothing within ``timeout`` seconds.
        """

    def put(self, thing: Any, /) -> None:
        """Let `get` return ``thing`` in its turn; never blocks, and any thread may call it."""


class Servable(Protocol):
    """One copy of a wrapper: every method but `signature` is called in the slot's threads."""

    model: str

    @property
    def batches(self) -> bool:
        """Whether the wrapper takes several requests at once."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives, its examples in their JSON form."""

    def load(self) -> None:
        """Get ready.

        Raises:
            PluginError: that failed.
        """

    def unload(self) -> None:
        """Let go of what `load` took; a failure is logged."""

    def examples(self, wait: Callable[[Any], Any] = ...) -> Iterable[Example]:
        """Run the examples one by one; ``wait`` finishes a coroutine.

        Raises:
            PluginError: one failed.
        """

    # Each raises an `AtomError`: the request is at fault, or the plugin failed and it is logged.

    def answer(self, payload: Payload) -> Answer:
        """Answer one request."""

    def answers(self, payload: Payload) -> Generator[Answer]:
        """Answer one request with many answers."""

    def session(self, items: Inlet, form: AnswerForm) -> Generator[Answer]:
        """Answer what a session's client sends; closing it ends the session."""


@runtime_checkable
class Resourceful(Protocol):
    """A `Servable` that can load resources while it serves, called in the slot's threads.

    Each method raises an `AtomError` when that failed.
    """

    @property
    def takes_resources(self) -> bool:
        """Whether this one does."""

    def load_resource(self, name: str, payload: Payload) -> None:
        """Load what ``payload`` holds, of which nothing may be kept but copies, as ``name``."""

    def unload_resource(self, name: str) -> None:
        """Forget what was loaded as ``name``."""
