"""What an API process and a worker say to each other, as frames in a stream of bytes; no I/O.

Large bodies do not travel here: a `Place` in a sealed segment stands for them. The segment itself
travels beside the stream (`atomserve.transport.descriptors`, with a `Share` as the payload) before
the first frame that speaks of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from atomserve.engine.jobs import AnswerForm, Form, Takes
from atomserve.errors import AtomError, Fault, PluginFailed, all_errors
from atomserve.transport.arenas import Place

MAX_FRAME = 1024 * 1024
"""Most bytes of a frame, unless somebody says otherwise."""

F = TypeVar("F")


class BrokenFrame(AtomError):
    """The other process does not speak this protocol; whoever meets this closes the connection."""

    code = "broken_frame"


# From either side.


class Share(msgspec.Struct, frozen=True, array_like=True, tag="share", gc=False):
    """The sender's arena has a new segment; the descriptor is with this."""

    segment: int
    size: int


class Unshare(msgspec.Struct, frozen=True, array_like=True, tag="unshare", gc=False):
    """A segment of the sender's arena is gone, and no block in it is in use."""

    segment: int


# From an API process.


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run", gc=False):
    """Run a job: the fields of its `Payload` and of its `Context`."""

    job: int
    takes: Takes
    form: Form
    answer: AnswerForm
    body: bytes | Place
    deadline: float | None
    """On CLOCK_MONOTONIC, `time.monotonic`'s clock on Linux: the same in every process."""
    media_type: str = ""
    query: str = ""
    answer_type: str = ""
    request_id: str = ""
    tenant: str = ""
    headers: list[tuple[bytes, bytes]] = []
    """As they came: nobody pays for decoding them unless the wrapper asks."""


class BatchEnd(msgspec.Struct, frozen=True, array_like=True, tag="batch_end", gc=False):
    """The jobs that came since the last of these are one batch."""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel", gc=False):
    """Nobody waits for a job any more."""

    job: int


class Earn(msgspec.Struct, frozen=True, array_like=True, tag="earn", gc=False):
    """The client read ``items`` answers of a stream: as many more may be sent."""

    job: int
    items: int


class Item(msgspec.Struct, frozen=True, array_like=True, tag="item", gc=False):
    """What the client of a session sent."""

    job: int
    form: Form
    body: bytes | Place


class ItemsEnd(msgspec.Struct, frozen=True, array_like=True, tag="items_end", gc=False):
    """The client of a session sends no more."""

    job: int


class Free(msgspec.Struct, frozen=True, array_like=True, tag="free", gc=False):
    """A block of the worker's arena has been read."""

    place: Place


ToWorker = Run | BatchEnd | Cancel | Earn | Item | ItemsEnd | Free | Unshare


# From a worker.


class Answered(msgspec.Struct, frozen=True, array_like=True, tag="answered", gc=False):
    """One answer; the ``last`` one ends the job.

    ``within``: the body is a part of the request's, which lies with the receiver already, and
    ``head`` stands before it.
    """

    job: int
    body: bytes | Place
    media_type: str
    last: bool
    within: bool = False
    head: bytes = b""


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended", gc=False):
    """A stream has ended well."""

    job: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed", gc=False):
    """A job has ended with an error; see `failure_of` and `error_of`."""

    job: int
    code: str
    detail: str
    errors: tuple[Fault, ...] = ()
    retry_after: float | None = None
    error_id: str = ""


class Took(msgspec.Struct, frozen=True, array_like=True, tag="took", gc=False):
    """The wrapper read ``items`` of what the client of a session sent."""

    job: int
    items: int


class Release(msgspec.Struct, frozen=True, array_like=True, tag="release", gc=False):
    """Nothing in the worker looks at a block of the API process's arena any more."""

    place: Place


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done", gc=False):
    """The slot is free of a job that was cancelled; in place of any other end."""

    job: int


class Window(msgspec.Struct, frozen=True, array_like=True, tag="window", gc=False):
    """The worker wants at most so many jobs, or batches, that have not ended."""

    jobs: int


class Ledger(msgspec.Struct, frozen=True, array_like=True, tag="ledger", gc=False):
    """Where the worker writes which jobs it has begun, readable after its death, too."""

    place: Place


FromWorker = Answered | Ended | Failed | Took | Release | Done | Unshare | Window | Ledger


_PREFIX = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_Chunk = bytes | bytearray | memoryview


def encode_into(buffer: bytearray, frame: msgspec.Struct, cap: int = MAX_FRAME) -> None:
    """Append ``frame`` to ``buffer``, which stays as it was if that fails.

    Raises:
        BrokenFrame: the frame has more than ``cap`` bytes, or words that have no UTF-8.
    """
    start = len(buffer)
    buffer += b"\0\0\0\0"
    try:
        _encoder.encode_into(frame, buffer, start + 4)
        size = len(buffer) - start - 4
        if size > cap:
            raise _oversize(size, cap)
    except BaseException as exc:
        del buffer[start:]
        if isinstance(exc, UnicodeEncodeError):
            raise BrokenFrame(f"words that cannot be sent: {exc}") from exc
        raise
    _PREFIX.pack_into(buffer, start, size)


def encode(frame: msgspec.Struct, cap: int = MAX_FRAME) -> bytes:
    """Return ``frame`` as it travels; raises as `encode_into` does."""
    buffer = bytearray()
    encode_into(buffer, frame, cap)
    return bytes(buffer)


class Decoder(Generic[F]):
    """Cuts a stream of bytes into the frames of the types in ``kinds``.

    A frame that lies within one chunk is decoded where it lies; only one that was torn apart is
    put together first. What it returns keeps nothing of the chunks.
    """

    def __init__(self, kinds: Any, cap: int = MAX_FRAME) -> None:
        self._decode = msgspec.msgpack.Decoder[F](kinds).decode
        self._cap = cap
        self._torn = bytearray()

    def __repr__(self) -> str:
        return f"<Decoder: {len(self._torn)} bytes held>"

    def feed(self, chunk: _Chunk) -> list[F]:
        """Take ``chunk`` and return the frames that it completes.

        Raises:
            BrokenFrame: one is too large or is none; the stream cannot be read any further.
        """
        try:
            return self._cut(memoryview(chunk))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise BrokenFrame(f"a frame that is none: {exc}") from exc

    def _cut(self, chunk: memoryview) -> list[F]:
        frames: list[F] = []
        start, end = 0, len(chunk)
        if self._torn:
            start = self._mend(chunk, frames)
        decode, cap, size_at = self._decode, self._cap, _PREFIX.unpack_from
        while end - start >= 4:
            (size,) = size_at(chunk, start)
            if size > cap:
                raise _oversize(size, cap)
            if size > end - start - 4:
                break
            start += 4 + size
            frames.append(decode(chunk[start - size : start]))
        self._torn += chunk[start:]
        return frames

    def _mend(self, chunk: memoryview, frames: list[F]) -> int:
        """Complete the torn frame from ``chunk`` and return how much of it that took."""
        torn = self._torn
        start = 4 - len(torn) if len(torn) < 4 else 0
        torn += chunk[:start]
        if len(torn) < 4:
            return len(chunk)
        size = int.from_bytes(torn[:4], "little")
        if size > self._cap:
            raise _oversize(size, self._cap)
        stop = start + 4 + size - len(torn)
        torn += chunk[start:stop]
        if len(torn) < 4 + size:
            return len(chunk)
        self._torn = bytearray()
        frames.append(self._decode(memoryview(torn)[4:]))
        return stop


def _oversize(size: int, cap: int) -> BrokenFrame:
    return BrokenFrame(f"a frame of {size} bytes is over the limit of {cap}")


_MAX_FAULTS = 64
_MAX_TEXT = 1024
_MAX_WAIT = 1e9


def failure_of(job: int, error: AtomError) -> Failed:
    """Put ``error`` into words that always make a frame, whatever a plugin has put into it."""
    faults = error.errors if isinstance(error.errors, Sequence) else ()
    return Failed(
        job=job,
        code=_text(error.code),
        detail=_text(error.detail),
        errors=tuple(
            Fault(_text(fault.path), _text(fault.message))
            for fault in faults[:_MAX_FAULTS]
            if isinstance(fault, Fault)
        ),
        retry_after=_seconds(error.retry_after),
        error_id=_text(error.error_id),
    )


def _text(words: Any) -> str:
    # A plugin's message may hold what has no UTF-8, such as the lone surrogates of a file name.
    return str(words)[:_MAX_TEXT].encode(errors="replace").decode()


def _seconds(wait: Any) -> float | None:
    if isinstance(wait, int | float) and 0 <= wait < _MAX_WAIT:
        return float(wait)
    return None


def error_of(frame: Failed) -> AtomError:
    """Return the error that ``frame`` speaks of; a code that is unknown here is `PluginFailed`."""
    error = _error_class(frame.code)(frame.detail)
    # Set here, since not every class takes them.
    error.errors = frame.errors
    error.retry_after = frame.retry_after
    error.error_id = frame.error_id
    return error


@lru_cache(maxsize=256)
def _error_class(code: str) -> type[AtomError]:
    return all_errors().get(code, PluginFailed)
