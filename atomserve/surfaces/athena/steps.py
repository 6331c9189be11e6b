"""What a WebSocket of Athena has its surface do, and by which options it decides."""

from __future__ import annotations

from typing import Literal

import msgspec

from atomserve.codecs.athena.answers import Expected
from atomserve.codecs.athena.codes import INACTIVE
from atomserve.codecs.athena.errors import Failure
from atomserve.codecs.athena.nodes import OnceRequest
from atomserve.codecs.athena.requests import TextIn

READ_TIMEOUT = 15.0
SESSION_TIMEOUT = 180.0
MOST_SESSIONS = 64
"""Over one WebSocket at a time; clients are told to keep to 15."""

CLOSE_NORMAL, CLOSE_POLICY, CLOSE_TOO_BIG = 1000, 1008, 1009
CLOSE_FAILED, CLOSE_TRY_LATER = 1011, 1013
LONGEST_REASON = 123
"""Bytes that a close frame has room for: RFC 6455, 5.5."""

Why = Literal["finished", "failed", "timeout", "left"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How one service speaks over WebSockets; the defaults are upstream's."""

    multiplexed: bool = False
    """Several sessions share the WebSocket, told apart by ``header.cid``."""
    text: TextIn = "base64"
    expected: Expected = Expected(text="base64")
    header_pass: tuple[str, ...] = ()
    read_timeout: float = READ_TIMEOUT
    session_timeout: float = SESSION_TIMEOUT
    most_sessions: int = MOST_SESSIONS
    ignored: frozenset[int] = frozenset({INACTIVE})
    """Errors of these codes end a session without a frame that says so."""
    native: bool = False
    """Close codes tell what happened; upstream's is 1000 whatever it was."""


class Frame(msgspec.Struct, frozen=True):
    """Give ``request`` to the wrapper; the first of a session, ``seq`` 1, creates it."""

    sid: str
    seq: int
    request: OnceRequest
    last: bool
    cid: str = ""


class Send(msgspec.Struct, frozen=True):
    """Write one text frame."""

    body: bytes


class End(msgspec.Struct, frozen=True):
    """Destroy this session; nothing is sent of it any more, whatever comes."""

    sid: str
    why: Why


class Close(msgspec.Struct, frozen=True):
    """Close the WebSocket; the last step of all."""

    code: int = CLOSE_NORMAL
    reason: str = ""


Step = Frame | Send | End | Close


def closing(failure: Failure, *, native: bool) -> Close:
    """Return how the WebSocket is closed after ``failure``."""
    reason = failure.message.encode(errors="replace")[:LONGEST_REASON].decode(errors="ignore")
    return Close(_close_code(failure.status) if native else CLOSE_NORMAL, reason)


def _close_code(status: int) -> int:
    if status == 413:
        return CLOSE_TOO_BIG
    if status in (429, 503, 504):
        return CLOSE_TRY_LATER
    return CLOSE_POLICY if status < 500 else CLOSE_FAILED
