"""The client of one request as the surfaces see it: its id, its leaving, what to log of it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from atomserve.guard.problems import Refusal, problem_response

Gone = Callable[[], None]


class ClientGone(OSError):
    """The client left, or does not read: nothing that is sent can arrive any more."""


class Client:
    """Who asked.

    A surface sets ``route``, ``model`` and ``code`` for the access record, ``tenant`` for the
    queue, and ``refusal`` where its dialect tells of errors in another way than as problem details.
    """

    __slots__ = ("_callbacks", "code", "gone", "model", "refusal", "request_id", "route", "tenant")

    def __init__(self) -> None:
        self.request_id = ""
        self.gone = False
        self.route = ""
        self.model = ""
        self.code = ""
        self.tenant = ""
        self.refusal: Refusal = problem_response
        self._callbacks: list[Gone] | None = None

    def on_gone(self, callback: Gone) -> None:
        """Run ``callback`` once, on the loop, when the client leaves; at once if it has left.

        It is never run after the answer is complete. It must not block.
        """
        if self.gone:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)


def client_of(scope: Scope) -> Client:
    """Return the client that the guard keeps for this request."""
    client: Client = scope["atomserve.client"]
    return client
