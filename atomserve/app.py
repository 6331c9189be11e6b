"""The application that an API process serves: models behind surfaces behind the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import msgspec
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from atomserve.backend import Backend
from atomserve.engine import Engine, Watcher
from atomserve.errors import MethodNotAllowed, NotFound, PluginError
from atomserve.guard import Guard
from atomserve.local import ThreadBackend
from atomserve.options import class_options, decide
from atomserve.plugins import Source, load_class, served_name
from atomserve.runner import Runner
from atomserve.settings import ModelSettings, Settings
from atomserve.signature import read_contract
from atomserve.surfaces import docs, health, native, openapi
from atomserve.surfaces.sessions import SessionEndpoint
from atomserve.wrapper import Wrapper


def create(settings: Settings, sources: Sequence[Source]) -> App:
    """Build the application; nothing runs before its lifespan begins.

    Raises:
        PluginError: a plugin cannot be imported or validated.
    """
    classes: dict[str, type[Wrapper]] = {}
    for source in sources:
        cls = load_class(source, Wrapper)
        classes[served_name(source, cls)] = cls
    return App(settings, {name: backend(name, cls, settings) for name, cls in classes.items()})


def backend(name: str, cls: type[Wrapper], settings: Settings) -> Backend:
    """Make the backend that serves ``cls`` as ``name``; raises PluginError as `create` does."""
    model = settings.models.get(name, ModelSettings())
    contract = read_contract(cls, plugin=name)
    try:
        options = decide(class_options(cls), settings, model)
    except msgspec.ValidationError as exc:
        raise PluginError(f"plugin {name!r}: {cls.__name__}: class attributes: {exc}") from exc
    return ThreadBackend(
        partial(Runner, cls, contract, model=name, config=dict(model.config)), options
    )
