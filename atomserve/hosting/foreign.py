"""Applications of others: found by what a source names, imported, and not started yet."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from starlette.types import ASGIApp

from atomserve import control
from atomserve.errors import PluginError
from atomserve.loading import load_object
from atomserve.plugins import APP_LOADERS, Source, python_place
from atomserve.settings import Settings


class Foreign(NamedTuple):
    """An application to host; ``told`` is what the supervisor has to know of it, if anything."""

    name: str
    app: ASGIApp
    told: control.AppDescribed | None = None


AppLoader = Callable[[Source, Settings], Foreign]
"""What `atomserve.plugins.APP_LOADERS` names; it raises as `load_app` does."""


def load_app(source: Source, settings: Settings) -> Foreign:
    """Import the application that ``source`` names.

    Raises:
        PluginError: it cannot be imported, or is no application.
        MissingExtra: its loader needs what is not installed.
    """
    module, _, attribute = APP_LOADERS[source.loader].partition(":")
    load: AppLoader = getattr(importlib.import_module(module), attribute)
    return load(source, settings)


def load_asgi(source: Source, settings: Settings) -> Foreign:
    """Import the object that ``asgi:module:app`` or ``asgi:file.py:app`` names."""
    place = python_place(source.argument)
    assert place is not None, "a source is made only of what has this form"
    module = msgspec.structs.replace(
        source, kind=place.kind, target=place.target, attribute=place.attribute or "app"
    )
    found = load_object(module)
    if isinstance(found, type) or not callable(found):
        what = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise PluginError(f"{source}: {module.attribute} is no ASGI application but {what}")
    return Foreign(source.name or "app", found)
