"""One copy of a wrapper as a slot runs it: requests and sessions, decoded, called and encoded."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from atomserve.backends.servable import Inlet
from atomserve.codecs.answers import Answers
from atomserve.codecs.athena.answers import once_answer
from atomserve.codecs.athena.nodes import ONCE, TEXT, Node
from atomserve.codecs.athena.service import DIALECT, Said, Service, Told, pack
from atomserve.codecs.referable import referable
from atomserve.compat.aiges.asked import Reader, data_list
from atomserve.compat.aiges.calls import Calls
from atomserve.compat.aiges.contract import Described
from atomserve.compat.aiges.conversation import Conversation
from atomserve.compat.aiges.loader import Loaded
from atomserve.compat.aiges.parameters import Parameters
from atomserve.compat.aiges.resources import personal, resource_nodes
from atomserve.compat.aiges.sessions import SessionManager
from atomserve.context import current_context
from atomserve.engine.jobs import Answer, AnswerForm, Payload
from atomserve.errors import AtomError, BadAnswer, NotReady, PluginError, PluginFailed
from atomserve.media.sources import Sources
from atomserve.settings import AigesSettings
from atomserve.signature import Signature
from atomserve.surfaces.athena.talks import UNTOLD, distinct
from atomserve.wrapper import Example

log = structlog.get_logger("atomserve.aiges")

POOL_PATIENCE = 1.0
"""Seconds that a wrapper's own threads get to end after `wrapperFini`."""


class AigesRunner:
    """Runs one AIGES wrapper; requests may come from as many threads as its slot has."""

    batches = False

    def __init__(
        self,
        wrapper: Loaded,
        described: Described,
        service: Service,
        *,
        model: str,
        config: dict[str, str],
        settings: AigesSettings,
        sources: Sources,
    ) -> None:
        self.model = model
        self.takes_resources = wrapper.has("load_res")
        self._loaded = wrapper
        self._service = service
        self._config = config
        self._settings = settings
        parameters = Parameters(wrapper.declared.fields.params, settings.validate)
        self._reader = Reader(described, service, parameters, sources)
        self._answers = Answers(described.contract.output)
        self._expected = service.expected("raw")
        self._calls: Calls | None = None
        dialects = {DIALECT: msgspec.to_builtins(service)}
        shown = referable(described.contract.signature, sources.allowed)
        self.signature: Signature = msgspec.structs.replace(shown, dialects=dialects)

    def load(self) -> None:
        """Make the wrapper and initialise it.

        Raises:
            PluginError: it cannot be made, or refused.
        """
        for key in self._loaded.config.unknown:
            log.warning("config.unknown", model=self.model, file="aiges.toml", key=key)
        for key, instead in self._loaded.config.idle.items():
            log.warning(
                "config.idle", model=self.model, file="aiges.toml", key=key, instead=instead
            )
        try:
            bound = self._loaded.make()
            code = bound.init(dict(self._config))
        except PluginError:
            raise
        except BaseException as exc:  # whatever a plugin does must not end its thread
            log.error("plugin.broken", model=self.model, method="init", exc_info=exc)
            what = " ".join(f"{type(exc).__name__}: {exc}".split())
            raise PluginError(f"model {self.model!r}: wrapperInit failed: {what}") from exc
        if code:
            text = " ".join(bound.message(code).split())
            raise PluginError(f"model {self.model!r}: wrapperInit refused: {text}")
        self._calls = Calls(
            bound,
            self.model,
            asynchronous=self._loaded.config.asynchronous,
            c_len=self._settings.c_len,
        )

    def unload(self) -> None:
        """Let the wrapper finish, and its pool of threads; the slot bounds how long that takes."""
        calls, self._calls = self._calls, None
        if calls is None:
            return
        calls.quietly("fini", calls.bound.fini)
        pool = getattr(calls.bound.wrapper, "session", None)
        if isinstance(pool, SessionManager):
            pool.close(POOL_PATIENCE)

    def examples(self, wait: Callable[[Any], Any] = lambda answer: answer) -> Iterable[Example]:
        """Run nothing: an AIGES wrapper has no examples."""
        return ()

    def load_resource(self, name: str, payload: Payload) -> None:
        """Have the wrapper load a personal resource; raises as `Resourceful` says."""
        calls = self._ready()
        request = data_list(resource_nodes(payload, text_in=self._service.text_in))
        calls.accepted("load", calls.bound.load_res, request, personal(name))

    def unload_resource(self, name: str) -> None:
        """Have the wrapper forget a personal resource; raises as `Resourceful` says."""
        calls = self._ready()
        calls.accepted("unload", calls.bound.unload_res, personal(name))

    def answer(self, payload: Payload) -> Answer:
        """Answer one request; raises as `Servable.answer` does."""
        try:
            asked = self._reader.once(payload)
            nodes = self._ready().once(asked)
            if payload.form != "athena":
                return self._answers.encode(_values(nodes), payload.answer, payload.answer_type)
            return Answer(once_answer(nodes, asked.accepts, asked.sid, self._expected))
        except BaseException as exc:
            raise self._failure(exc) from exc

    def answers(self, payload: Payload) -> Generator[Answer]:
        """Answer one request of a stream wrapper, as a session of one item."""
        items: SimpleQueue[Any] = SimpleQueue()
        items.put(payload)
        talk = Conversation(self._ready(), items, self._read_single)
        yield from self._each(talk, payload.answer)

    def session(self, items: Inlet, form: AnswerForm) -> Generator[Answer]:
        """Serve one session; closing the generator destroys it."""
        sid = uuid4().hex
        talk = Conversation(self._ready(), items, lambda item: self._reader.said(item, sid))
        yield from self._each(talk, form)

    def _read_single(self, payload: Payload) -> Said:
        said = self._reader.said(payload, uuid4().hex)
        for node in said.request.nodes:
            if node.status == UNTOLD:
                node.status = ONCE
        said.last = True
        return said

    def _each(self, talk: Conversation, form: AnswerForm) -> Generator[Answer]:
        with closing(talk.told(self._reader.begun)) as results:
            try:
                for told in results:
                    if form == "athena":
                        yield Answer(pack(told))
                    else:
                        yield from self._native(told, form)
            except GeneratorExit:
                raise
            except BaseException as exc:
                raise self._failure(exc) from exc

    def _native(self, told: Told, form: AnswerForm) -> Generator[Answer]:
        for nodes in distinct(told.nodes):
            yield self._answers.encode(_values(nodes), form)

    def _ready(self) -> Calls:
        if self._calls is None:
            raise NotReady("the model is not loaded")
        return self._calls

    def _failure(self, exc: BaseException) -> AtomError:
        """Return what the client is told; what nobody has logged yet is logged."""
        if isinstance(exc, AtomError) and (not isinstance(exc, BadAnswer) or exc.error_id):
            return exc
        error = exc if isinstance(exc, BadAnswer) else PluginFailed()
        error.error_id = secrets.token_hex(8)
        context = current_context.get(None)
        log.error(
            "plugin.failed",
            model=self.model,
            error_id=error.error_id,
            request_id="" if context is None else context.request_id,
            exc_info=exc,
        )
        return error


def _values(nodes: Sequence[Node]) -> dict[str, Any]:
    """Return results as the native surface writes them: text as text."""
    return {
        each.key: str(each.data, "utf-8", "replace") if each.type == TEXT else each.data
        for each in nodes
    }
