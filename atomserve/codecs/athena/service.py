"""What a model that speaks Athena tells the surface, and what both say beside the documents."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from atomserve.codecs.athena.answers import Expected, TextOut
from atomserve.codecs.athena.nodes import Accept, Node, OnceRequest
from atomserve.codecs.athena.requests import TextIn

DIALECT = "athena"
"""The protocol's name among a signature's dialects."""
ROOT = "/v1/private/"
"""Where services are, unless they say otherwise."""

Statuses = Literal["compatible", "native"]


class Envelopes(msgspec.Struct, frozen=True):
    """What a model's requests and answers are, for whoever describes the server."""

    request: dict[str, Any] = {}
    """JSON Schema; empty: anything."""
    answer: dict[str, Any] = {}
    """JSON Schema of a single request's answer."""
    example: dict[str, Any] = {}
    """A request to try; empty: there is none."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """How one model is asked by Athena."""

    path: str
    """Where its clients ask, without the server's own prefix."""
    once: bool = True
    """Takes single requests."""
    stream: bool = False
    """Takes sessions, over WebSockets."""
    accepts: dict[str, Accept] = {}
    """The outputs that the model itself names."""
    strict_accepts: bool = False
    """A client gets the outputs alone that it names."""
    text: TextOut | None = None
    """How the text of answers is written; None: ``raw`` over HTTP, ``base64`` over WebSockets."""
    text_in: TextIn = "base64"
    statuses: Statuses = "compatible"
    """Which HTTP status and close code tell of a failure: 500 and 1000 always, or what it is."""
    header_pass: tuple[str, ...] = ()
    """Names in a request's header that are parameters, too."""
    read_timeout: float = 15.0
    """Seconds of silence after which a WebSocket is closed."""
    session_timeout: float = 180.0
    """Seconds that a session may take."""
    envelopes: Envelopes = Envelopes()

    @property
    def compatible(self) -> bool:
        """Whether failures have the statuses that upstream gives them."""
        return self.statuses == "compatible"

    def expected(self, usual: TextOut) -> Expected:
        """Return which outputs clients get, their text written as ``usual`` unless decided."""
        return Expected(self.accepts, self.strict_accepts, self.text or usual)


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """What the surface knows of a single request beside its body."""

    sid: str
    app_id: str = ""
    """The application whose key signed the request."""
    digest: str = ""
    """What was signed of the body."""


class Said(msgspec.Struct, array_like=True):
    """One frame of a session, on its way to the wrapper."""

    sid: str
    request: OnceRequest
    last: bool


class Told(msgspec.Struct, array_like=True):
    """One result of a session; the first of all, ``opened``, says that there is one now."""

    nodes: list[Node] = []
    opened: bool = False


_pack = msgspec.msgpack.Encoder().encode
_said = msgspec.msgpack.Decoder(Said).decode
_told = msgspec.msgpack.Decoder(Told).decode
_ask = msgspec.json.Decoder(Ask).decode


def pack(thing: Said | Told) -> bytes:
    """Write what passes between the surface and the wrapper's process."""
    return _pack(thing)


def read_said(body: bytes | bytearray | memoryview) -> Said:
    """Read one frame of a session."""
    return _said(body)


def read_told(body: bytes | bytearray | memoryview) -> Told:
    """Read one result of a session."""
    return _told(body)


def write_ask(ask: Ask) -> str:
    """Write ``ask`` as a payload's query."""
    return msgspec.json.encode(ask).decode()


def read_ask(query: str) -> Ask:
    """Read a payload's query."""
    return _ask(query)
