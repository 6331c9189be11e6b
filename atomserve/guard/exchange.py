"""One request and its answer on their way between server and app: counted, bounded, watched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

import anyio
import structlog
from starlette.types import Message, Receive, Send

from atomserve.errors import AtomError, TooLarge, TooSlow
from atomserve.guard.admission import UNKNOWN
from atomserve.guard.bounds import Bounds
from atomserve.guard.client import Client, ClientGone
from atomserve.guard.interruptions import Interruption
from atomserve.guard.problems import problem_response, send_refusal

# This module speaks to asyncio itself: a cancel scope around every receive and send would cost
# more than all the rest of the guard together (benchmarks/guard_overhead.py measures both).

log = structlog.get_logger()

T = TypeVar("T")

_BREATH = 0.002
_SOONEST_CHECK = 0.05
_LAST = frozenset({"http.response.trailers", "http.response.pathsend"})
_END: Message = {"type": "http.response.body", "body": b"", "more_body": False}
_GONE: Message = {"type": "http.disconnect"}


class Unanswered(RuntimeError):
    """The app returned without a complete answer."""


async def _gone() -> Message:
    return _GONE


async def _refuse(message: Message) -> None:
    raise ClientGone("the request is over")


class Exchange(Client):
    """The ``receive`` and ``send`` that the app is given, and what is known of the request so far.

    There is at most one reader of the server's ``receive``: the app, or, once the app has no more
    to read, a listener that discards the rest and notices that the client left.

    ========  =========  ====================================================================
    request   answer     who reads
    ========  =========  ====================================================================
    arriving  open       the app; the listener, if the app answers and has never asked
    complete  open       the listener, once the request is watched or streams: for departures
    arriving  held back  `finish`, which discards the rest; then it sends the answer's end
    any       finished   nobody; `close` comes next
    any       gone       nobody; who sends is told `ClientGone`
    ========  =========  ====================================================================
    """

    __slots__ = (
        "_asked",
        "_bounds",
        "_breathed",
        "_delivered",
        "_discarding",
        "_heard",
        "_held_back",
        "_holding",
        "_interruption",
        "_listener",
        "_pieces",
        "_reading",
        "_receive",
        "_send",
        "_sending",
        "_since_receive",
        "_since_send",
        "_task",
        "_timer",
        "_trailers",
        "_waited",
        "_watched",
        "began",
        "bodiless",
        "bytes_in",
        "bytes_out",
        "closing",
        "complete",
        "declared",
        "failure",
        "finished",
        "plain",
        "status",
    )

    def __init__(self, bounds: Bounds, receive: Receive, send: Send) -> None:
        self.request_id = self.route = self.model = self.code = self.tenant = ""
        self.gone = False
        self.refusal = problem_response
        self._callbacks = None
        self._bounds = bounds
        self._receive = receive
        self._send = send
        self.began = monotonic()
        self.declared = 0
        """The body's length, or UNKNOWN."""
        self.plain = True
        """HTTP/1.x: an answer may ask to close the connection."""
        self.closing = False
        self.bytes_in = self.bytes_out = self.status = 0
        self.failure: AtomError | None = None
        self.complete = False
        """No byte of the request is still to come."""
        self.bodiless = False
        """Nothing is expected to come, though only the end of the request will tell."""
        self.finished = False
        """The answer is complete."""
        self._pieces = self._holding = 0
        self._asked = self._delivered = self._held_back = self._watched = self._trailers = False
        self._discarding = False
        self._waited = self._since_receive = self._since_send = self._breathed = 0.0
        self._task = asyncio.current_task()
        self._interruption: Interruption | None = None
        self._reading = self._sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._listener: anyio.CancelScope | None = None
        self._heard: anyio.Event | None = None

    def __repr__(self) -> str:
        state = "gone" if self.gone else "finished" if self.finished else self.status or "open"
        return f"<Exchange {self.request_id}: {state}, {self.bytes_in} in, {self.bytes_out} out>"

    def expect(self, length: int) -> None:
        """Take note of the body's length, and reserve room for it.

        Raises TooLarge and Busy, before anything has been read.
        """
        self.declared = length
        if length == 0:
            self.complete = True
        elif length != UNKNOWN:
            if length > self._bounds.limits.body:
                raise self._too_large()
            self._bounds.hold(length)
            self._holding = length

    # What the app calls.

    async def receive(self) -> Message:
        """Give the app the next piece of the body, then, when it comes to that, the disconnect."""
        if self.gone or self.finished:
            return _GONE
        if self._listener is not None or self._reading:
            return await self._hear_of_departure()
        self._asked = True
        try:
            message = await self._wait(self._receive())
            while self._delivered and message["type"] == "http.request":
                message = await self._wait(self._receive())
        except TooSlow as error:
            self.failure = error
            raise
        if message["type"] != "http.request":
            self._depart()
            return message
        self._count(message)
        self._check_limits(len(message.get("body", b"")))
        if self.complete:
            self._delivered = True
            message["more_body"] = False
            if self._watched:
                self._listen()
        return message

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer; raises ClientGone when nobody is there to read it."""
        if self.gone:
            raise ClientGone("the client left")
        if self.failure is not None and not self.status:
            return  # the failure is answered when the app has ended, whatever it says of it
        kind = message["type"]
        streaming = False
        if kind == "http.response.start":
            message = self._opened(message)
        elif kind == "http.response.body":
            body = message.get("body", b"")
            self.bytes_out += len(body)
            if message.get("more_body", False) or self._trailers:
                streaming = True
            elif self.complete or await self._body_ended():
                self.finished = True
            else:
                # The server stops reading a body whose answer is complete; on HTTP/2 what still
                # arrives would take the connection down. So the end waits: see finish.
                self._held_back = True
                message = {**message, "more_body": True}
        elif kind in _LAST and not message.get("more_trailers", False):
            self.finished = True
        self._sending = True
        self._since_send = monotonic()
        try:
            await self._send(message)
        except asyncio.CancelledError:
            reason = self.interruption()
            if reason is not None:
                raise reason from None
            raise
        finally:
            self._sending = False
        if streaming and self._since_send - self._breathed > _BREATH:
            # A server need not wait in send, least of all when the client has left: without this,
            # a generator that never waits either would keep the loop from hearing of it.
            self._breathed = self._since_send
            self._listen()
            await asyncio.sleep(0)

    # What the guard calls.

    @property
    def answered(self) -> bool:
        """Whether the app has given its whole answer, though its end may be held back."""
        return self.finished or self._held_back

    def watch(self) -> None:
        """Begin what a request that is not over at once needs: deadlines, an ear for its client."""
        self._watched = True
        self._check()
        self._listen()

    async def finish(self) -> None:
        """End the answer, after the app has returned.

        Raises Unanswered if there is none, ClientGone if nobody is there to read it.
        """
        if self.finished:
            return
        if self.gone:
            raise ClientGone("the client left")
        if not self._held_back:
            raise self.failure or Unanswered("the app returned without a complete answer")
        await self._discard()
        self.complete = True
        await self.send(_END)

    async def answer(self, error: AtomError, send: Send) -> None:
        """Answer with ``error``, for an app that did not; ``send`` leads to this exchange's own."""
        self.failure = None
        self.code = error.code
        self.closing = self.closing or not self.complete
        await send_refusal(send, self.refusal(error))
        await self.finish()

    def close(self) -> None:
        """Let go of everything that the request held."""
        self.finished = True
        self._bounds.held -= self._holding
        self._callbacks = None
        # The server's stream holds the scope, which holds the client that this is: without the
        # knot undone, each request would be left to the garbage collector.
        self._receive, self._send = _gone, _refuse
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        self._tell()

    # Reading.

    async def _wait(self, what: Awaitable[T]) -> T:
        """Wait for the client to go on with its body; raises TooSlow when its rate is too low."""
        self._reading = True
        self._since_receive = monotonic()
        try:
            return await what
        except asyncio.CancelledError:
            self._reading = False
            reason = self.interruption()
            if reason is not None:
                raise reason from None
            if self._watched:
                self._listen()  # whoever waited has given up, not the client
            raise
        finally:
            self._reading = False
            self._waited += monotonic() - self._since_receive

    def _count(self, message: Message) -> None:
        if message["type"] != "http.request":
            return self._depart()
        size = len(message.get("body", b""))
        self.bytes_in += size
        self._pieces += 1
        # Servers say only in an empty message of its own that a body has ended; its length tells
        # earlier, which saves a turn.
        if not message.get("more_body", False) or self.bytes_in == self.declared:
            self.complete = True
        return None

    def _check_limits(self, size: int) -> None:
        limits = self._bounds.limits
        try:
            if self.bytes_in > limits.body:
                raise self._too_large()
            if self._pieces > limits.chunks:
                raise TooLarge(f"The body came in more than {limits.chunks} pieces.")
            if self.declared == UNKNOWN and size:
                self._bounds.hold(size)
                self._holding += size
        except AtomError as error:
            self.failure = error
            raise

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is over the limit of {self._bounds.limits.body} bytes.")

    async def _body_ended(self) -> bool:
        """Tell whether the request has ended, where only its end can tell: on HTTP/2."""
        # A bare GET over HTTP/2 looks like this; its end has come with its head.
        reading = self._reading or self._listener is not None
        if self.declared == UNKNOWN and not self.plain and not reading:
            await self._discard(pieces=1)
        return self.complete

    async def _discard(self, pieces: int = 0) -> None:
        """Read what is left of the body, as far as the limits go for a second time."""
        limits = self._bounds.limits
        most = self.bytes_in + limits.body
        last = self._pieces + (pieces or limits.chunks)
        self._discarding = self._listener is None
        with suppress(TooSlow):
            while not (self.complete or self.gone):
                if self._discarding:
                    self._count(await self._wait(self._receive()))
                else:
                    await self._wait(self._news())
                if self.bytes_in > most or self._pieces >= last:
                    break
        self._discarding = False

    # Listening.

    def _listen(self) -> None:
        """Start listening, if nobody else is reading and the app has nothing left to read."""
        if self._listener is not None or self._reading or self._discarding:
            return
        if self.finished or self.gone:
            return
        # An app that answers in a stream without having asked for the body must not keep the
        # server from reading on; one that has asked is trusted to go on reading.
        if not (self.complete or self.bodiless) and (self._asked or not self.status):
            return
        if self._bounds.tasks is None:
            raise RuntimeError("the guard is not running: enter it, or pass it the lifespan")
        self._listener = anyio.CancelScope()
        self._bounds.tasks.start_soon(self._hear, self._listener)

    async def _hear(self, scope: anyio.CancelScope) -> None:
        limits = self._bounds.limits
        most, last = self.bytes_in + limits.body, self._pieces + limits.chunks
        with scope:
            try:
                while not (self.finished or self.gone):
                    self._count(await self._receive())
                    self._tell()
                    if self.bytes_in > most or self._pieces > last:
                        self._depart()
            except Exception:  # the group is shared: a server's fault here must not end all others
                log.exception("http.receive_failed", request_id=self.request_id)

    async def _hear_of_departure(self) -> Message:
        while not (self.gone or self.finished):
            if (self.complete or self.bodiless) and not self._delivered:
                self._delivered = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._news()
        return _GONE

    async def _news(self) -> None:
        """Wait until another task has read something."""
        if self._heard is None:
            self._heard = anyio.Event()
        await self._heard.wait()

    def _tell(self) -> None:
        heard, self._heard = self._heard, None
        if heard is not None:
            heard.set()

    def _depart(self) -> None:
        if self.finished or self.gone:
            return
        self.gone = True
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:  # the others still have to hear of it
                log.exception("http.on_gone_failed", request_id=self.request_id)
        self._tell()

    # Sending.

    def _opened(self, message: Message) -> Message:
        self.status = message["status"]
        self._breathed = monotonic()
        self._trailers = message.get("trailers", False)
        headers: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
        own = [(b"x-request-id", self.request_id.encode())]
        if self.plain and (self.closing or self._bounds.draining):
            own.append((b"connection", b"close"))
            headers = [pair for pair in headers if pair[0].lower() != b"connection"]
        if self._watched:
            self._listen()
        return {**message, "headers": [*headers, *own]}

    # Deadlines.

    def _check(self) -> None:
        """End a wait that has lasted too long; look again when the next one may have."""
        now = monotonic()
        stall = self._bounds.limits.send_stall
        due = now + stall
        if self._sending:
            due = self._since_send + stall
            if due <= now:
                self._interrupt(ClientGone("the client does not read"))
        elif not self.complete:
            limits = self._bounds.limits
            allowed = limits.min_rate_grace + self.bytes_in / limits.min_rate - self._waited
            if self._reading:
                allowed -= now - self._since_receive
                if allowed <= 0:
                    self._interrupt(TooSlow())
            due = min(due, now + allowed)
        delay = max(due - now, _SOONEST_CHECK)
        self._timer = asyncio.get_running_loop().call_later(delay, self._check)

    def _interrupt(self, reason: AtomError | OSError) -> None:
        """Cancel the request's own task: whatever task of the app's waits, ends with it."""
        if self._task is not None and self._interruption is None:
            self._interruption = Interruption(self._task, reason)
            if isinstance(reason, ClientGone):
                self.finished = False
                self._depart()

    def interruption(self) -> Exception | None:
        """Return why a cancellation that has come this far is our own, and take it back."""
        found = self._interruption
        if found is None or not found.arrived:
            return None
        self._interruption = None
        return found.take_back()
