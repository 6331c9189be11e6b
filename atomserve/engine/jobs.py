"""One request on its way through the engine, and what those who meet it may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from atomserve.context import Context
from atomserve.errors import AtomError

Form = Literal["json", "msgpack", "multipart", "npy", "raw"]
"""How a request is written: ``raw`` is the bytes of the model's single binary input."""

AnswerForm = Literal["json", "msgpack", "npy", "media"]
"""How an answer is written: ``media`` is the bytes of a picture, sound, film or blob."""


Takes = Literal["call", "stream", "session"]
"""What a job is: one answer, many answers, many in and many out."""

USUAL_URGENCY = 3
"""Of 0, the first to be served, to 7; RFC 9218's default."""


class Body(Protocol):
    """A large request body that lies where the slots can see it; `release` gives it back."""

    @property
    def data(self) -> memoryview:
        """The bytes, of no use after `release`."""

    def __len__(self) -> int: ...

    def release(self) -> None: ...


class Payload(msgspec.Struct, kw_only=True):
    """A request as it came, to be decoded where the slot lives."""

    form: Form = "json"
    body: Any = b""
    """bytes, bytearray or memoryview; a `Body` until the job has reached its slot's process."""
    media_type: str = ""
    """The request's media type with its parameters, for ``raw`` and ``multipart``."""
    query: str = ""
    """The query string: scalars beside a raw body."""
    answer: AnswerForm = "json"
    answer_type: str = ""
    """For ``media``: the media type that the client prefers, empty for the field's own."""

    def release(self) -> None:
        """Give a large body back; once."""
        if type(self.body) not in (bytes, bytearray, memoryview):
            self.body.release()


class Answer(msgspec.Struct, frozen=True):
    """An answer as it leaves, or one item of a stream."""

    body: bytes | memoryview
    media_type: str = "application/json"
    head: bytes = b""
    """What stands before ``body``: a large array need not be copied to put a header there."""

    def copied(self) -> Answer:
        """Return it in bytes of its own: a view keeps all that it is a view of."""
        if type(self.body) is bytes and not self.head:
            return self
        return Answer(b"".join((self.head, self.body)), self.media_type)


class Reply(Protocol):
    """Where a job's answers go; the first of `end` and `fail` is its only end.

    Called on the event loop only, but for `begun` and `prepared`, which the slot's thread calls.
    After the end every call is ignored.
    """

    def begun(self, place: int) -> None:
        """The wrapper is about to run, for all of the job's batch, in this place of its slot."""

    def prepared(self, answer: Answer) -> Answer:
        """Make ``answer`` independent of the wrapper's memory."""

    def answer(self, answer: Answer) -> None:
        """Pass one answer on; the only one of a unary job ends it."""

    def end(self) -> None:
        """End a stream well."""

    def fail(self, error: AtomError) -> None:
        """End with an error."""

    @property
    def ended(self) -> bool: ...


class Items(Protocol):
    """What a session's client sends, on its way to the slot; called on the loop."""

    def attach(self, deliver: Callable[[Payload | None], None]) -> None:
        """From now on call ``deliver`` with each item, at last with None."""

    def taken(self) -> None:
        """The wrapper has read one more item."""

    def close(self) -> None:
        """Nothing more will come."""


class Holder(Protocol):
    """Who has a job in its hands: the lane while it waits, the slot while it runs."""

    def drop(self, job: Job) -> None:
        """Nobody waits for ``job`` any more: stop it if that is possible."""


class Job:
    """A request with its deadline, the place its answers go, and who holds it."""

    __slots__ = (
        "arrived",
        "consumed",
        "context",
        "cost",
        "holder",
        "items",
        "key",
        "payload",
        "reply",
        "taken",
        "takes",
        "urgency",
    )

    headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()
    """What its answer says beside its body."""

    def __init__(
        self,
        payload: Payload,
        context: Context,
        reply: Reply,
        *,
        takes: Takes = "call",
        items: Items | None = None,
        urgency: int = USUAL_URGENCY,
    ) -> None:
        self.payload = payload
        self.context = context
        self.reply = reply
        self.takes = takes
        self.items = items
        self.holder: Holder | None = None
        self.consumed: Callable[[], None] = _nothing
        """Set by the slot of a stream: the client has read one more answer."""
        self.arrived = 0.0
        """When it was accepted, on the context's clock."""
        self.taken: float | None = None
        """When it was handed to a slot, on the context's clock."""
        self.urgency = urgency
        self.cost = 1.0
        """What it takes of a batch's budget, and of its tenant's turn."""
        self.key: Hashable = None
        """Only jobs with equal keys share a batch; a `suspects.Part` once it lost its worker."""

    @property
    def started(self) -> bool:
        """A slot has taken it."""
        return self.taken is not None

    def expired(self, now: float) -> bool:
        """Say whether the deadline has passed at ``now``, on the context's clock."""
        deadline = self.context.deadline
        return deadline is not None and deadline <= now

    def give_up(self, error: AtomError) -> None:
        """End the job with ``error`` because nobody waits any more; a no-op once it has ended."""
        if not self.reply.ended:
            self.reply.fail(error)
            self.walk_away()

    def walk_away(self) -> None:
        """Tell whoever holds the job, and its wrapper, that nobody waits any more."""
        self.context.cancelled = True
        if self.holder is not None:
            self.holder.drop(self)

    def __repr__(self) -> str:
        state = "ended" if self.reply.ended else "live"
        return f"<Job {self.context.request_id or '-'} for {self.context.model}: {state}>"


def _nothing() -> None:
    pass
