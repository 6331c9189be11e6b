"""Calls of a wrapper whose failures are logged here, and told in the words of AIGES."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import structlog

from atomserve.codecs.athena.codes import Operation
from atomserve.codecs.athena.errors import EXCEPTION, WrapperRefused
from atomserve.codecs.athena.nodes import BEGIN, CONTINUE, ONCE, Node
from atomserve.compat.aiges.answers import ends, pieces_of, response_of
from atomserve.compat.aiges.asked import Asked
from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.figures import Figures
from atomserve.compat.aiges.routing import ROUTES
from atomserve.context import current_context
from atomserve.errors import Abandoned, AtomError, BadAnswer, DeadlineExceeded, PluginFailed
from atomserve.surfaces.athena.talks import LAST

T = TypeVar("T")

LOOK = 1.0
"""Seconds between two looks whether anybody still waits."""

log = structlog.get_logger("atomserve.aiges")


class Calls:
    """Calls one wrapper; safe from any thread."""

    def __init__(
        self,
        bound: Bound,
        model: str,
        *,
        asynchronous: bool | None = None,
        c_len: bool = False,
        figures: Figures | None = None,
    ) -> None:
        self.bound = bound
        self.model = model
        self.figures = Figures(model) if figures is None else figures
        wanted = asynchronous or not bound.has("once")
        self._by_callback = wanted and bound.has("once_async")
        self.reads = bound.has("read") and asynchronous is not True
        """A session's results may be read from the wrapper."""
        self._c_len = c_len
        self._warned: set[str] = set()

    def once(self, asked: Asked) -> list[Node]:
        """Run one request.

        Raises:
            AtomError: the wrapper failed or refused, or its answer is none.
        """
        results: SimpleQueue[Any] = SimpleQueue()

        def deliver(response: Any) -> bool:
            results.put(response)
            return True

        route = ROUTES.open(
            deliver if self._by_callback else _nobody,
            asked.sid,
            metric=self.metric(asked.sid),
            trace=self.trace(asked.sid),
        )
        told = {"sid": asked.sid, "tag": asked.sid, "patch": asked.patch}
        try:
            if not self._by_callback:
                call = self.bound.once
                response = self.value("exec", call, asked.params, asked.request, **told)
                return self.nodes(response, "exec")
            start = self.bound.once_async
            self.accepted("exec", start, asked.params, asked.request, **told)
            return self._whole(results)
        finally:
            route.close()

    def _whole(self, results: SimpleQueue[Any]) -> list[Node]:
        """Wait for a result that may come in pieces, from a status of 0 or 1 to one of 2 or 3."""
        nodes: list[Node] = []
        while True:
            more, last = self.result(_awaited(results), "callback")
            nodes += more
            if last or all(node.status not in (BEGIN, CONTINUE) for node in nodes):
                return joined(nodes)

    def value(self, operation: Operation, call: Callable[..., T], *args: Any, **more: Any) -> T:
        """Call the wrapper; an exception of its own is its error code -1."""
        try:
            return call(*args, **more)
        except BadAnswer as exc:
            raise self._bad(exc) from exc
        except AtomError:
            raise
        except BaseException as exc:
            raise self._failed(operation, exc) from exc

    def accepted(
        self, operation: Operation, call: Callable[..., int], *args: Any, **more: Any
    ) -> None:
        """Call the wrapper, which answers a code other than 0 when it refuses."""
        code = self.value(operation, call, *args, **more)
        if code:
            raise self.refusal(operation, code)

    def refusal(self, operation: Operation, code: int) -> WrapperRefused:
        """Return the error that says that the wrapper answered ``code``."""
        return WrapperRefused.of(operation, code, self.bound.error_text(code))

    def nodes(self, response: Any, operation: Operation) -> list[Node]:
        """Return what a result holds; raises where it is an error."""
        return self.result(response, operation)[0]

    def result(self, response: Any, operation: Operation) -> tuple[list[Node], bool]:
        """Return what a result holds, and whether it is a stream's last, as `nodes` does."""
        try:
            response = response_of(response, operation)
            if response.error_code:
                raise self.refusal(operation, response.error_code)
            found = pieces_of(response, warned=self._warned, c_len=self._c_len)
            last = ends(response) or any(piece.status in LAST for piece in found)
        except BadAnswer as exc:
            raise self._bad(exc) from exc
        except (TypeError, ValueError, AttributeError) as exc:
            raise self._bad(BadAnswer(f"{operation}: {exc}")) from exc
        nodes = [Node(each.key, each.data, each.type, each.status, {}) for each in found]
        return nodes, last

    def quietly(
        self, operation: Operation, call: Callable[..., int], *args: Any, **more: Any
    ) -> None:
        """Call the wrapper where nobody waits for it to go well; a failure is logged."""
        try:
            code = call(*args, **more)
        except BaseException as exc:  # whatever it raises, what follows goes on
            log.error("plugin.failed", model=self.model, operation=operation, exc_info=exc)
            return
        if code:
            text = self.bound.message(code)
            log.warning("plugin.refused", model=self.model, operation=operation, detail=text)

    def metric(self, sid: str) -> Callable[[str, int], None]:
        """Return what counts a session's figures."""
        facts = self._facts(sid)

        def note(key: str, count: int) -> None:
            self.figures.add(key, count)
            log.info("plugin.metric", **facts, key=key, count=count)

        return note

    def trace(self, sid: str) -> Callable[[str, str], None]:
        """Return what notes a session's events."""
        facts = self._facts(sid)

        def note(key: str, value: str) -> None:
            log.info("plugin.trace", **facts, key=key, value=value)

        return note

    def _facts(self, sid: str) -> dict[str, str]:
        """Say whose figures and events they are: threads that call back know no request."""
        return {"model": self.model, "sid": sid, "request_id": _request_id()}

    def _failed(self, operation: Operation, exc: BaseException) -> WrapperRefused:
        text = self.bound.error_text(EXCEPTION) or PluginFailed().title
        error = WrapperRefused.of(operation, EXCEPTION, text)
        error.error_id = self._log("plugin.failed", operation=operation, exc_info=exc)
        return error

    def _bad(self, error: BadAnswer) -> BadAnswer:
        error.error_id = self._log("plugin.bad_answer", detail=error.detail)
        return error

    def _log(self, event: str, **facts: Any) -> str:
        error_id = secrets.token_hex(8)
        log.error(event, model=self.model, error_id=error_id, request_id=_request_id(), **facts)
        return error_id


def joined(nodes: list[Node]) -> list[Node]:
    """Put together what came in pieces under one key."""
    pieces: dict[str, list[Node]] = {}
    for node in nodes:
        pieces.setdefault(node.key, []).append(node)
    if len(pieces) == len(nodes):
        return nodes
    return [
        Node(key, b"".join(bytes(each.data) for each in found), found[0].type, ONCE, {})
        for key, found in pieces.items()
    ]


def _request_id() -> str:
    context = current_context.get(None)
    return "" if context is None else context.request_id


def _nobody(_: Any) -> bool:
    return False


def _awaited(results: SimpleQueue[Any]) -> Any:
    """Wait for a result, as long as somebody waits for it."""
    context = current_context.get(None)
    while True:
        left = None if context is None else context.remaining
        try:
            return results.get(timeout=LOOK if left is None else max(0.0, min(left, LOOK)))
        except Empty:
            pass
        if left is not None and left <= 0:
            raise DeadlineExceeded("no result was called back in time")
        if context is not None and context.cancelled:
            raise Abandoned
