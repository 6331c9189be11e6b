"""The loader ``aiges``: a `wrapper.py` made ready to be served."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec

from atomserve.backends.prepared import Prepared
from atomserve.codecs.athena.nodes import Accept
from atomserve.codecs.athena.service import Service
from atomserve.compat.aiges.configuration import texts
from atomserve.compat.aiges.contract import describe
from atomserve.compat.aiges.declared import key_of
from atomserve.compat.aiges.loader import Loaded, loaded
from atomserve.compat.aiges.runtime import AigesRunner
from atomserve.engine.options import decide
from atomserve.errors import PluginError
from atomserve.media.sources import Sources
from atomserve.plugins import Source, checked_name
from atomserve.settings import AigesSettings, ModelSettings, Settings

TIMEOUT = 120.0
"""Seconds that upstream waits for a single request."""
READ_TIMEOUT, SESSION_TIMEOUT = 15.0, 180.0
MARGIN = 2.0
"""Seconds by which the surface, which can tell an Athena client more, ends a session earlier."""
MOST_THREADS = 256
"""Of one copy; upstream's sample of 1000 licences is not meant as a number of threads."""
ROUTE = "/v1/private/"

_held = ExitStack()
"""What keeps the wrapper's names, module and folder in place until the process ends."""


def prepare(source: Source, settings: Settings) -> Prepared:
    """Import the wrapper that ``source`` names; raises as `atomserve.backends.prepared` says.

    From here on the process is the wrapper's: its working directory, and the modules it imports.
    """
    path = source.target.partition(":")[2]
    with ExitStack() as stack:
        wrapper = stack.enter_context(loaded(path, prefer_real=settings.aiges.prefer_real))
        prepared = _prepared(wrapper, source, settings)
        _held.push(stack.pop_all())
    return prepared


def _prepared(wrapper: Loaded, source: Source, settings: Settings) -> Prepared:
    name = source.name or checked_name(wrapper.declared.service_id, source.spec)
    own = settings.models.get(name, ModelSettings())
    once, stream = _offers(wrapper)
    service = service_of(wrapper, settings.aiges, name=source.name, once=once, stream=stream)
    try:
        options = decide(_wanted(wrapper, service), settings, own)
    except msgspec.ValidationError as exc:
        raise PluginError(f"{source}: aiges.toml: {exc}") from exc
    if options.executor == "thread":
        raise PluginError(f'{source}: runs in a process of its own; remove executor = "thread"')
    make = partial(
        AigesRunner,
        wrapper,
        describe(
            wrapper.declared, name, once=once, stream=stream, resources=wrapper.has("load_res")
        ),
        service,
        model=name,
        config=texts(wrapper.config.wrapper, own.config),
        settings=settings.aiges,
        sources=Sources(settings.media),
    )
    return Prepared(name, options, make)


def release() -> None:
    """Give the process back, where it goes on: what `prepare` imported is not to be used again."""
    _held.close()


def service_of(
    wrapper: Loaded, settings: AigesSettings, *, name: str | None, once: bool, stream: bool
) -> Service:
    """Return how Athena clients ask ``wrapper``, which ``name`` renames."""
    declared, config = wrapper.declared, wrapper.config
    accepts = {
        key_of(field): Accept(field.data_type, _description(field))
        for field in declared.fields.accepts
    }
    return Service(
        path=declared.path if name is None else f"{ROUTE}{name}",
        once=once,
        stream=stream,
        accepts=accepts,
        strict_accepts=settings.strict_accepts,
        text=settings.text,
        text_in=settings.text_in,
        statuses=settings.statuses,
        header_pass=config.header_pass,
        read_timeout=config.read_timeout or READ_TIMEOUT,
        session_timeout=config.session_timeout or SESSION_TIMEOUT,
    )


def _description(field: Any) -> dict[str, str]:
    found = {name: getattr(field, name, "") for name in ("encoding", "compress", "format")}
    if field.data_type == 0:
        usual = {"encoding": "utf8", "compress": "raw", "format": "plain"}
        return {name: str(value or usual[name]) for name, value in found.items()}
    return {name: str(value) for name, value in found.items() if value}


def _offers(wrapper: Loaded) -> tuple[bool, bool]:
    """Say whether the wrapper takes single requests, and whether it takes sessions."""
    has = wrapper.has
    return has("once") or has("once_async"), has("create") and has("write")


def _wanted(wrapper: Loaded, service: Service) -> dict[str, Any]:
    config = wrapper.config
    wanted: dict[str, Any] = {"timeout": TIMEOUT}
    if config.licences is not None:
        wanted["capacity"] = min(config.licences, MOST_THREADS)
    if service.stream:
        wanted["stream_timeout"] = service.session_timeout + MARGIN
    return wanted
