"""A WebSocket on its way through the guard: refused at its handshake or ended, with what to log."""

from __future__ import annotations

from starlette.types import Message, Scope, Send

from atomserve.errors import AtomError, Internal
from atomserve.guard.client import Client, ClientGone
from atomserve.guard.failures import as_error, log_failure
from atomserve.guard.problems import send_refusal

SWITCHING = 101
_INTERNAL_ERROR = 1011
_REFUSED = 403


class Handshake(Client):
    """The ``send`` that the app is given for a WebSocket, which notes what became of it."""

    __slots__ = ("_plain_refusal", "_send", "ended", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        super().__init__()
        self._send = send
        self._plain_refusal = "websocket.http.response" not in (scope.get("extensions") or {})
        self.status = 0
        """101 once accepted, the status of the refusal otherwise."""
        self.ended = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self.status = SWITCHING
        elif kind == "websocket.close":
            self.status = self.status or _REFUSED
            self.ended = True
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
        elif kind == "websocket.http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)

    async def fail(self, exc: Exception) -> None:
        """Tell the client what ended the app: by a refusal, or by closing."""
        if self.ended or isinstance(exc, ClientGone):
            return
        if self.status:
            self.code = exc.code if isinstance(exc, AtomError) else Internal.code
            log_failure(exc, self.request_id)
            if self.status == SWITCHING:
                await self.send({"type": "websocket.close", "code": _INTERNAL_ERROR})
            return
        error = as_error(exc, self.request_id)
        self.code = error.code
        if self._plain_refusal:
            await self.send({"type": "websocket.close"})
        else:
            await send_refusal(self.send, self.refusal(error), kind="websocket.http.response")
