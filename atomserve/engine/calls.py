"""A job seen by the surface that asked for it: await it, iterate over it, talk to it, walk away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.loops import Timer, call_later
from atomserve.engine.replies import Many, One
from atomserve.engine.streams import Inbox
from atomserve.errors import Abandoned, AtomError, DeadlineExceeded

Forget = Callable[[Job], None]


class Asked(Protocol):
    """What a call can end: a job of its own, or its part in one that several wait for."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]: ...

    def give_up(self, error: AtomError) -> None: ...

    def walk_away(self) -> None: ...


Wanted = TypeVar("Wanted", bound=Asked)


class Call:
    """A unary job on its way; `answer` must be awaited, once."""

    __slots__ = ("_forget", "_job", "_reply", "_timer")

    def __init__(
        self, job: Wanted, reply: One, timeout: float, forget: Callable[[Wanted], None]
    ) -> None:
        self._job: Asked = job
        self._reply = reply
        self._forget: Callable[[Any], None] = forget
        self._timer: Timer = call_later(timeout, self._expire)

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """What the answer says beside its body; ask when it is there."""
        return self._job.headers

    async def answer(self) -> Answer:
        """Wait for the answer; being cancelled abandons the job.

        Raises:
            AtomError: the job failed, or nobody waits for it any more.
        """
        try:
            return await self._reply
        except AtomError:
            raise
        except BaseException:
            self._job.walk_away()
            raise
        finally:
            self._timer.cancel()
            self._forget(self._job)

    def abandon(self) -> None:
        """The client left."""
        self._job.give_up(Abandoned())

    def _expire(self) -> None:
        self._job.give_up(DeadlineExceeded())


class Stream:
    """A job with many answers; iterate over it inside ``async with``, whose end abandons the rest.

    Each answer has ``timeout`` from the one before, all together ``total``. A wait for the next
    answer may be cancelled and taken up again.
    """

    __slots__ = ("_forget", "_item_timer", "_job", "_reply", "_timeout", "_total_timer")

    def __init__(
        self, job: Job, reply: Many, timeout: float, total: float | None, forget: Forget
    ) -> None:
        self._job = job
        self._reply = reply
        self._timeout = timeout
        self._forget = forget
        self._item_timer: Timer | None = None
        self._total_timer = None if total is None else call_later(total, self._run_out)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in (self._item_timer, self._total_timer):
            if timer is not None:
                timer.cancel()
        self.abandon()
        self._forget(self._job)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Answer:
        if self._item_timer is None:
            self._item_timer = call_later(self._timeout, self._expire)
        answer = await anext(self._reply)
        self._item_timer.cancel()
        self._item_timer = None
        self._job.consumed()
        return answer

    def abandon(self) -> None:
        """The client left."""
        self._job.give_up(Abandoned())

    def _expire(self) -> None:
        self._job.give_up(DeadlineExceeded("the next answer was not there in time"))

    def _run_out(self) -> None:
        self._job.give_up(DeadlineExceeded("the stream took longer than stream_timeout"))


class Session(Stream):
    """A stream whose client sends, too.

    Its silence is no fault: only the start has to come within ``timeout``, and the whole within
    ``total``.
    """

    __slots__ = ("_inbox",)

    def __init__(
        self,
        job: Job,
        reply: Many,
        timeout: float,
        total: float | None,
        forget: Forget,
        *,
        inbox: Inbox,
    ) -> None:
        super().__init__(job, reply, timeout, total, forget)
        self._inbox = inbox
        self._item_timer = call_later(timeout, self._expire)

    async def __anext__(self) -> Answer:
        answer = await anext(self._reply)
        self._job.consumed()
        return answer

    async def send(self, item: Payload) -> None:
        """Hand over what the client sent; waits while the wrapper is behind."""
        await self._inbox.put(item)

    def finish(self) -> None:
        """The client sends no more."""
        self._inbox.close()

    def _expire(self) -> None:
        if not self._job.started:
            self._job.give_up(DeadlineExceeded("the session found no free slot in time"))
