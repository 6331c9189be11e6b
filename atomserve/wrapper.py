"""The author's contract: what a plugin's class may say, and what is called when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A golden request: shown in the API documentation, run before the model counts as ready.

    A media or ``Blob`` input may be given as the encoded bytes or as the `pathlib.Path` of a file.
    ``tolerance`` is the largest absolute difference allowed between the numbers of ``output`` and
    those of the answer.
    """

    inputs: Mapping[str, Any]
    output: Any = msgspec.UNSET
    tolerance: float = 0.0
    name: str = ""


class Wrapper:
    """Subclass this around blocking inference code; only ``predict`` is required.

    Write exactly one of these methods; its annotations are the service's schema:

    - ``predict(self, a: A, b: B = default) -> R``: one request, one answer;
    - a generator ``predict`` returning ``Iterator[R]``: one request, a stream of answers;
    - ``async def predict``: awaited on the event loop of the model's slot;
    - ``predict_batch(self, requests: list[A]) -> list[R]``: several requests at once;
    - ``session(self, inputs: Iterator[A]) -> Iterator[R]``: many in, many out.

    ``load`` and ``unload`` run in the same thread as ``predict``. Raise `atomserve.BadRequest` to
    answer 400 with a message of your own; any other exception answers 500 without its text.

    The class attributes are defaults that the operator may override.
    """

    executor: ClassVar[Literal["process", "thread"]] = "process"
    """Where the slots run: each in a worker process of its own, or in threads of the server."""
    slots: ClassVar[int] = 1
    """Running copies of the wrapper."""
    capacity: ClassVar[int] = 1
    """Requests that one copy may run at once; more than 1 asks for thread-safe code."""
    timeout: ClassVar[float] = 60.0
    """Seconds that a request may take, waiting included; per item of a stream."""
    grace: ClassVar[float] = 1.0
    """Seconds after the timeout before a busy slot counts as hung."""
    startup_timeout: ClassVar[float] = 600.0
    """Seconds that ``load`` and the examples may take."""
    stream_timeout: ClassVar[float | None] = None
    """Seconds that a whole stream may take; None is unlimited."""
    queue_size: ClassVar[int] = 32
    """Requests that may wait for a slot; one more is refused."""
    idempotent: ClassVar[bool] = False
    """A request whose worker was lost may be run once more, elsewhere; those of a batch until it is
    known which one kills."""
    cancel: ClassVar[Literal["run", "kill"]] = "run"
    """What happens to a running request that nobody waits for any more: it runs on, or its worker
    is replaced."""
    max_batch_size: ClassVar[int] = 32
    """Most requests that ``predict_batch`` gets at once."""
    max_batch_delay: ClassVar[float] = 0.005
    """Seconds that a free slot may wait for a batch to grow; it waits only while that pays."""
    batch_key: ClassVar[str] = ""
    """The name of an input: only requests with equal values of it share a batch."""
    batch_cost: ClassVar[str] = ""
    """What ``max_batch_cost`` bounds: the name of an input, or ``"bytes"``."""
    max_batch_cost: ClassVar[float | None] = None
    """Most that the requests of one batch may cost together."""
    bisect: ClassVar[bool] = True
    """A batch that fails is split and run again until only the guilty request fails."""
    target_latency: ClassVar[float | None] = None
    """Seconds within which 99 of 100 requests should be answered: size and delay of the batches
    adapt to it, within their bounds."""
    stack: ClassVar[Literal[False, True, "group", "pad"]] = False
    """Tensors of a batch arrive as one array each, with a leading batch axis. Those of other shapes
    run in a call of their own (True, "group"), or are zero-padded at the end ("pad")."""
    cacheable: ClassVar[bool] = False
    """An answer depends on its inputs alone: equal requests are computed once and their answer is
    kept, whoever asks. Not for streams and sessions."""
    cache_size: ClassVar[int] = 64 * 1024 * 1024
    """Bytes of answers that each API process keeps."""
    cache_ttl: ClassVar[float] = 300.0
    """Seconds for which an answer is kept."""
    version: ClassVar[str] = "1"
    examples: ClassVar[Sequence[Example]] = ()

    def load(self, config: Any) -> None:
        """Prepare to answer; called once, before any request.

        ``config`` is ``[models.NAME.config]`` of the settings, converted to the parameter's
        annotation, a `msgspec.Struct` or dataclass; without one it is a plain dict.
        """

    def unload(self) -> None:
        """Let go of what ``load`` took; called once, after the last request."""
