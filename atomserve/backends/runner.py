"""One copy of a wrapper, ready to be called: it decodes, calls and encodes, blocking.

It knows nothing of threads and runs wherever the slot lives.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
import structlog

from atomserve.backends.batch_calls import BatchCalls
from atomserve.backends.golden import check_answer
from atomserve.codecs.codec import Codec
from atomserve.codecs.referable import referable
from atomserve.context import Context, current_context
from atomserve.engine.jobs import Answer, AnswerForm, Job, Payload
from atomserve.errors import AtomError, BadAnswer, NotReady, PluginError, PluginFailed
from atomserve.media.sources import Sources
from atomserve.signature import Contract, Signature
from atomserve.wrapper import Example, Wrapper

log = structlog.get_logger("atomserve.backends")

_END = object()


def _request_ids() -> Sequence[str]:
    context = current_context.get(None)
    return ("",) if context is None else (context.request_id,)


def _ids(request_ids: Sequence[str]) -> dict[str, Any]:
    if len(request_ids) == 1:
        return {"request_id": request_ids[0]}
    return {"request_ids": list(request_ids)}


def _as_it_is(value: Any) -> Any:
    return value


class Runner:
    """Calls one instance of ``cls``; every method but `signature` runs in the slot's own thread."""

    def __init__(
        self,
        cls: type[Wrapper],
        contract: Contract,
        *,
        model: str,
        config: dict[str, Any],
        sources: Sources | None = None,
    ) -> None:
        self._cls = cls
        self._contract = contract
        self.model = model
        self._config = config
        self._sources = Sources() if sources is None else sources
        self._codec = Codec(contract, self._sources)
        self._wrapper: Wrapper | None = None
        self._method: Callable[..., Any] = _not_loaded
        self.calls = BatchCalls(contract, cls.stack)

    @property
    def is_async(self) -> bool:
        return self._contract.is_async

    @property
    def batches(self) -> bool:
        """The wrapper takes several requests at once."""
        return self._contract.signature.takes == "batch"

    @property
    def signature(self) -> Signature:
        """The model's signature with its examples in their JSON form."""
        examples = []
        for example in self._cls.examples:
            try:
                examples.append(self._codec.example_json(example.inputs))
            except (AtomError, ValueError, OSError) as exc:
                raise self._refuse(example, exc) from exc
        shown = referable(self._contract.signature, self._sources.allowed)
        return msgspec.structs.replace(shown, examples=tuple(examples))

    def load(self) -> None:
        """Make the instance and let it load.

        Raises:
            PluginError: the configuration does not fit, or ``load`` failed.
        """
        try:
            config = msgspec.convert(self._config, self._contract.config, strict=False)
        except msgspec.ValidationError as exc:
            raise PluginError(f"models.{self.model}.config: {exc}") from exc
        try:
            self._wrapper = self._cls()
            self._wrapper.load(config)
        except BaseException as exc:  # whatever a plugin does must not end its thread
            raise self._broken("load", exc) from exc
        self._method = getattr(self._wrapper, self._contract.method)

    def unload(self) -> None:
        """Let the instance go; a failure is logged."""
        if self._wrapper is None:
            return
        try:
            self._wrapper.unload()
        except BaseException as exc:  # noqa: BLE001 - a plugin's code
            self._broken("unload", exc)
        self._wrapper = None

    def examples(self, wait: Callable[[Any], Any] = _as_it_is) -> Iterator[Example]:
        """Run the examples one by one and check their answers; ``wait`` finishes a coroutine.

        Raises:
            PluginError: an example failed, or answered something else.
        """
        if self._contract.signature.takes == "session":
            return
        for example in self._cls.examples:
            token = current_context.set(Context(model=self.model))
            try:
                answer = self._call(self._codec.example_values(example.inputs))
                if self._contract.signature.streams:
                    answer = _collected(answer) if self.is_async else list(answer)
                check_answer(example, wait(answer) if self.is_async else answer)
            except BaseException as exc:
                raise self._refuse(example, exc) from exc
            finally:
                current_context.reset(token)
            yield example

    def answer(self, payload: Payload) -> Answer:
        """Answer one request.

        Raises:
            AtomError: the request is at fault, or the plugin failed (its error is in the log).
        """
        try:
            value = self._call(self._codec.decode(payload))
            return self._codec.encode(value, payload.answer, payload.answer_type)
        except BaseException as exc:
            raise self.failure(exc, _request_ids()) from exc

    def answers(self, payload: Payload) -> Generator[Answer]:
        """Answer one request with many answers; closing the iterator closes the plugin's."""
        return self._each(lambda: self._call(self._codec.decode(payload)), payload.answer)

    def session(self, items: Iterable[Payload], form: AnswerForm) -> Generator[Answer]:
        """Answer what a session's client sends; an item that cannot be decoded ends it."""
        return self._each(lambda: self._method(map(self._codec.decode_item, items)), form)

    async def answer_async(self, payload: Payload) -> Answer:
        """Await one answer."""
        try:
            value = await self._call(await self._decoded(payload))
            return self._codec.encode(value, payload.answer, payload.answer_type)
        except BaseException as exc:
            if _cancelled(exc):
                raise
            raise self.failure(exc, _request_ids()) from exc

    async def answers_async(self, payload: Payload) -> AsyncIterator[Answer]:
        """Await many answers."""
        values = await self._decoded(payload)
        async with aclosing(self._call(values)) as produced:
            while True:
                try:
                    value = await anext(produced)
                except StopAsyncIteration:
                    return
                except BaseException as exc:
                    if _cancelled(exc):
                        raise
                    raise self.failure(exc, _request_ids()) from exc
                yield self._codec.encode(value, payload.answer)

    async def _decoded(self, payload: Payload) -> tuple[Any, ...]:
        if not self._codec.waits:
            return self._codec.decode(payload)
        # What one request waits for must not stop the others of this loop.
        return await asyncio.to_thread(self._codec.decode, payload)

    def request(self, job: Job) -> Any:
        """Return one request of a batch.

        Raises:
            AtomError: the request is at fault.
        """
        token = current_context.set(job.context)  # it bounds what may have to be fetched
        try:
            return self._codec.request(self._codec.decode(job.payload))
        except BaseException as exc:
            raise self.failure(exc, [job.context.request_id]) from exc
        finally:
            current_context.reset(token)

    def answer_batch(self, argument: Any, contexts: Sequence[Context]) -> Sequence[Any]:
        """Call ``predict_batch`` once; raises as `BatchCalls.call` does."""
        return self.calls.call(self._method, argument, contexts)

    def encode(self, value: Any, job: Job) -> Answer:
        """Write one answer of a batch.

        Raises:
            AtomError: it is not what the signature says, or an exception in an answer's place.
        """
        try:
            if isinstance(value, BaseException):
                raise value
            return self._codec.encode(value, job.payload.answer, job.payload.answer_type)
        except BaseException as exc:
            raise self.failure(exc, [job.context.request_id]) from exc

    def _call(self, values: tuple[Any, ...]) -> Any:
        contract = self._contract
        if self.batches:
            request, context = self._codec.request(values), current_context.get()
            return self.calls.alone(self._method, request, context)
        if not contract.keywords:
            return self._method(*values)
        count = len(contract.positional)
        keywords = dict(zip(contract.keywords, values[count:], strict=True))
        return self._method(*values[:count], **keywords)

    def _each(self, start: Callable[[], Iterator[Any]], form: AnswerForm) -> Generator[Answer]:
        # A GeneratorExit of the plugin's own is not the one that ends us.
        produced = self._guarded(lambda: iter(start()))
        try:
            while (value := self._guarded(partial(next, produced, _END))) is not _END:
                yield self._codec.encode(value, form)
        finally:
            if isinstance(produced, Generator):
                self._guarded(produced.close)

    def _guarded(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except BaseException as exc:
            raise self.failure(exc, _request_ids()) from exc

    def failure(self, exc: BaseException, request_ids: Sequence[str]) -> AtomError:
        """Log what went wrong with these requests, and return what their clients are told."""
        if isinstance(exc, BadAnswer):
            exc.error_id = secrets.token_hex(8)
            log.error(
                "plugin.bad_answer",
                model=self.model,
                error_id=exc.error_id,
                **_ids(request_ids),
                detail=exc.detail,
            )
        if isinstance(exc, AtomError):
            return exc
        error = PluginFailed(error_id=secrets.token_hex(8))
        log.error(
            "plugin.failed",
            model=self.model,
            error_id=error.error_id,
            **_ids(request_ids),
            exc_info=exc,
        )
        return error

    def _broken(self, method: str, exc: BaseException) -> PluginError:
        log.error("plugin.broken", model=self.model, method=method, exc_info=exc)
        what = " ".join(f"{type(exc).__name__}: {exc}".split())
        return PluginError(f"model {self.model!r}: {self._cls.__name__}.{method} failed: {what}")

    def _refuse(self, example: Example, exc: BaseException) -> PluginError:
        name = example.name or f"number {list(self._cls.examples).index(example) + 1}"
        what = " ".join(f"{type(exc).__name__}: {exc}".split())
        return PluginError(f"model {self.model!r}: example {name}: {what}")


def _cancelled(exc: BaseException) -> bool:
    """Say whether ``exc`` ends this task, and is not one that the plugin made up."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _collected(produced: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in produced]


def _not_loaded(*_: Any) -> Any:
    raise NotReady("the model is not loaded")
