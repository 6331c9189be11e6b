"""A job seen by the surface that asked for it: await it, iterate over it, talk to it, walk away."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from atomserve.errors import Abandoned, DeadlineExceeded
from atomserve.jobs import Answer, Job, Payload
from atomserve.loops import Timer, call_later
from atomserve.options import Options
from atomserve.replies import Many, One
from atomserve.streams import Inbox


class Call:
    """A unary job on its way; `answer` must be awaited, once."""

    __slots__ = ("_forget", "_job", "_reply", "_timer")

    def __init__(self, job: Job, reply: One, timeout: float, forget: Callable[[Job], None]) -> None:
        self._job = job
        self._reply = reply
        self._forget = forget
        self._timer: Timer = call_later(timeout, self._expire)

    async def answer(self) -> Answer:
        """Wait for the answer; being cancelled abandons the job.

        Raises:
            AtomError: the job failed, or nobody waits for it any more.
        """
        try:
            return await self._reply
        finally:
            self._timer.cancel()
            self._job.give_up(Abandoned())
            self._forget(self._job)

    def abandon(self) -> None:
        """The client left."""
        self._job.give_up(Abandoned())

    def _expire(self) -> None:
        self._job.give_up(DeadlineExceeded())


class Stream:
    """A job with many answers; iterate over it inside ``async with``, whose end abandons the rest.

    Each answer has ``options.timeout`` from the one before, all together ``stream_timeout``.
    """

    __slots__ = ("_forget", "_job", "_options", "_reply", "_timer")

    def __init__(
        self, job: Job, reply: Many, options: Options, forget: Callable[[Job], None]
    ) -> None:
        self._job = job
        self._reply = reply
        self._options = options
        self._forget = forget
        total = options.stream_timeout
        self._timer = None if total is None else call_later(total, self._expire)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._job.give_up(Abandoned())
        self._forget(self._job)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Answer:
        try:
            with anyio.fail_after(self._options.timeout):
                return await anext(self._reply)
        except TimeoutError as exc:
            error = DeadlineExceeded("the next answer was not there in time")
            self._job.give_up(error)
            raise error from exc

    def abandon(self) -> None:
        """The client left."""
        self._job.give_up(Abandoned())

    def _expire(self) -> None:
        self._job.give_up(DeadlineExceeded("the stream took longer than stream_timeout"))


class Session(Stream):
    """A stream whose client sends, too.

    The time for the next answer counts only while the wrapper has something to work on: see
    `Stream`; a session whose client is silent waits as long as ``stream_timeout`` lets it.
    """

    __slots__ = ("_inbox",)

    def __init__(
        self,
        job: Job,
        reply: Many,
        options: Options,
        forget: Callable[[Job], None],
        inbox: Inbox,
    ) -> None:
        super().__init__(job, reply, options, forget)
        self._inbox = inbox

    async def __anext__(self) -> Answer:
        return await anext(self._reply)

    async def send(self, item: Payload) -> None:
        """Hand over what the client sent; waits while the wrapper is behind."""
        await self._inbox.put(item)

    def finish(self) -> None:
        """The client sends no more."""
        self._inbox.close()
