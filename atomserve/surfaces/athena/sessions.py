"""The sessions of one WebSocket, decided without I/O or a clock: frames in, steps out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import uuid4

from atomserve.codecs.athena.answers import stream_ack, stream_answer, stream_end, stream_error
from atomserve.codecs.athena.codes import (
    BAD_FRAME,
    NO_LICENCE,
    SESSION_ENDED,
    SESSION_TIMEOUT,
)
from atomserve.codecs.athena.errors import (
    EnvelopeError,
    Failure,
    OutputRefused,
    PayloadError,
    failure,
    failure_of,
)
from atomserve.codecs.athena.nodes import BEGIN, ONCE, Node, OnceRequest
from atomserve.codecs.athena.requests import cid_of, decode_request
from atomserve.surfaces.athena.steps import Close, End, Options, Send, Step, Why, closing
from atomserve.surfaces.athena.talks import LAST, UNTOLD, Talk, distinct, status_of

MOST_REMEMBERED = 256
"""Names of ended sessions whose late frames are dropped."""


def new_sid() -> str:
    """Make up the 32 characters by which a stream's session is known."""
    return uuid4().hex


class AthenaSession:
    """One WebSocket's sessions, one at a time or several told apart by their cid.

    The surface calls in, with the time, and takes the steps it is given in their order. A session
    is addressed by its sid: what comes for one that has ended is dropped.
    """

    def __init__(
        self, options: Options, now: float, *, make_sid: Callable[[], str] = new_sid
    ) -> None:
        self._options = options
        self._make_sid = make_sid
        self._heard = now
        self._talks: dict[str, Talk] = {}
        self._by_cid: dict[str, Talk] = {}
        self._ended: dict[str, None] = {}
        self.closed = False

    def feed(self, text: str | bytes, now: float) -> list[Step]:
        """Take one frame of the client's."""
        if self.closed:
            return []
        self._heard = now
        try:
            request = decode_request(text, text=self._options.text, status=UNTOLD)
        except PayloadError as exc:
            return list(self._refuse(self._cid(cid_of(text)), failure_of(exc)))
        except EnvelopeError as exc:
            words = f"parse request json error: {exc.detail}"
            unknown = None if self._options.multiplexed else ""
            return list(self._refuse(unknown, failure(BAD_FRAME, words)))
        return list(self._take(self._cid(request.cid), request, now))

    def opened(self, sid: str, now: float) -> list[Step]:
        """The wrapper has created the session: acknowledge its first frame."""
        talk = self._talks.get(sid)
        if talk is None:
            return []
        self._heard = now
        return list(self._ack(talk))

    def answer(self, sid: str, nodes: Iterable[Node], now: float) -> list[Step]:
        """Take one result of the wrapper's."""
        talk = self._talks.get(sid)
        if talk is None:
            return []
        self._heard = now
        steps = list(self._ack(talk))
        try:
            for group in distinct(nodes):
                if sid in self._talks:
                    steps += self._result(talk, group)
        except OutputRefused as exc:
            steps += self._fail(talk, failure_of(exc), "failed")
        return steps

    def finish(self, sid: str, now: float) -> list[Step]:
        """The wrapper has no more to say, and its last result did not tell."""
        talk = self._talks.get(sid)
        if talk is None:
            return []
        self._heard = now
        end = Send(stream_end(talk.sid, talk.cid))
        return [*self._ack(talk), end, self._drop(talk, "finished")]

    def fail(self, sid: str, what: Failure, now: float) -> list[Step]:
        """Something went wrong with the session."""
        talk = self._talks.get(sid)
        if talk is None:
            return []
        self._heard = now
        return list(self._fail(talk, what, "failed"))

    def left(self) -> list[Step]:
        """The client has gone, or the server is about to."""
        self.closed = True
        return [self._drop(talk, "left") for talk in list(self._talks.values())]

    @property
    def _waits(self) -> bool:
        """Whether it is not for the client to say something: it waits for the wrapper."""
        return any(talk.heard_all or not talk.acked for talk in self._talks.values())

    def deadline(self) -> float:
        """Return when `expire` is to be called, should nothing happen until then."""
        began = min((talk.began for talk in self._talks.values()), default=float("inf"))
        silent = float("inf") if self._waits else self._heard + self._options.read_timeout
        return min(silent, began + self._options.session_timeout)

    def expire(self, now: float) -> list[Step]:
        """End what has taken too long."""
        steps: list[Step] = []
        for talk in list(self._talks.values()):
            if now >= talk.began + self._options.session_timeout:
                number = SESSION_TIMEOUT if talk.acked else NO_LICENCE
                steps += self._fail(talk, failure(number), "timeout")
                self._heard = now
        silent = not self._waits and now >= self._heard + self._options.read_timeout
        if silent and not self.closed:
            self.closed = True
            steps += [self._drop(talk, "timeout") for talk in list(self._talks.values())]
            steps.append(Close(reason="time out"))
        return steps

    def _cid(self, said: str) -> str:
        return said if self._options.multiplexed else ""

    def _take(self, cid: str, request: OnceRequest, now: float) -> Iterator[Step]:
        talk = self._by_cid.get(cid)
        if talk is None:
            if cid in self._ended and request.status not in (BEGIN, ONCE):
                return  # said before the client could know of the end
            if len(self._talks) >= self._options.most_sessions:
                yield from self._refuse(cid, failure(NO_LICENCE))
                return
            talk = self._begin(cid, request, now)
        elif talk.heard_all:
            yield from self._fail(talk, failure(SESSION_ENDED), "failed")
            return
        yield talk.hear(request)

    def _begin(self, cid: str, request: OnceRequest, now: float) -> Talk:
        talk = Talk(self._make_sid(), cid, now, request.accepts)
        self._talks[talk.sid] = self._by_cid[cid] = talk
        self._ended.pop(cid, None)
        request.pass_headers(talk.sid, self._options.header_pass)
        return talk

    def _ack(self, talk: Talk) -> Iterator[Step]:
        if not talk.acked:
            talk.acked = True
            yield Send(stream_ack(talk.sid, talk.cid))

    def _result(self, talk: Talk, nodes: list[Node]) -> Iterator[Step]:
        payload: dict[str, dict[str, Any]] = {}
        for node in nodes:
            payload[node.key] = block = self._options.expected.block(node, talk.accepts)
            block["seq"] = talk.told.get(node.key, 0)
            block["status"] = node.status
            talk.told[node.key] = block["seq"] + 1
        status = status_of(nodes)
        yield Send(stream_answer(payload, status=status, sid=talk.sid, cid=talk.cid))
        if status in LAST:
            yield self._drop(talk, "finished")
        if status == ONCE and not self._options.multiplexed:
            self.closed = True
            yield Close()

    def _fail(self, talk: Talk, what: Failure, why: Why) -> Iterator[Step]:
        if what.number not in self._options.ignored:
            yield Send(stream_error(what, talk.sid, talk.cid))
        yield self._drop(talk, why)
        yield from self._close(what)

    def _refuse(self, cid: str | None, what: Failure) -> Iterator[Step]:
        """Refuse a frame of the session ``cid``; None: nobody knows of which."""
        talk = None if cid is None else self._by_cid.get(cid)
        if talk is not None:
            yield from self._fail(talk, what, "failed")
            return
        yield Send(stream_error(what, self._make_sid(), cid or ""))
        yield from self._close(what)

    def _close(self, what: Failure) -> Iterator[Step]:
        if not self._options.multiplexed:
            self.closed = True
            yield closing(what, native=self._options.native)

    def _drop(self, talk: Talk, why: Why) -> End:
        del self._talks[talk.sid], self._by_cid[talk.cid]
        self._ended[talk.cid] = None
        if len(self._ended) > MOST_REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return End(talk.sid, why)
