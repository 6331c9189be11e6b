"""Sources made ready to be served: imported, described, configured, and not loaded yet."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec

from atomserve.backends.runner import Runner
from atomserve.backends.servable import Servable
from atomserve.class_checks import check_config
from atomserve.engine.options import Options, class_options, decide
from atomserve.errors import PluginError
from atomserve.loading import load_class, served_name
from atomserve.media.sources import Sources
from atomserve.plugins import Source, loaders
from atomserve.settings import ModelSettings, Settings
from atomserve.signature import read_contract
from atomserve.wrapper import Wrapper


class Prepared(NamedTuple):
    """A model that may be served; each call of ``make_runner`` makes one copy to load."""

    name: str
    options: Options
    make_runner: Callable[[], Servable]


Loader = Callable[[Source, Settings], Prepared]
"""What an entry point of ``atomserve.loaders`` is; it raises as `prepare` does."""


def prepare(source: Source, settings: Settings) -> Prepared:
    """Import what ``source`` names, and decide how it is served.

    Raises:
        PluginError: it cannot be imported or validated.
        ConfigError: its configuration does not fit.
    """
    if source.kind == "app":
        raise PluginError(f"{source}: is an app, which is hosted, and no model")
    if source.kind == "loader":
        return _loader_of(source)(source, settings)
    cls = load_class(source, base=Wrapper)
    return prepare_class(cls, served_name(source, cls), settings)


def prepare_class(cls: type[Wrapper], name: str, settings: Settings) -> Prepared:
    """Decide how ``cls`` is served as ``name``; raises as `prepare` does."""
    own = settings.models.get(name, ModelSettings())
    contract = read_contract(cls, plugin=name)
    try:
        options = decide(class_options(cls), settings, own)
    except msgspec.ValidationError as exc:
        raise PluginError(f"plugin {name!r}: {cls.__name__}: class attributes: {exc}") from exc
    check_config(name, own.config, contract.config)
    make = partial(
        Runner,
        cls,
        contract,
        model=name,
        config=dict(own.config),
        sources=Sources(settings.media),
    )
    return Prepared(name, options, make)


def _loader_of(source: Source) -> Loader:
    name = source.target.partition(":")[0]
    place = loaders().get(name)
    if place is None:
        raise PluginError(f'{source}: no loader "{name}" is installed')
    module, _, attribute = place.partition(":")
    try:
        found: Loader = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise PluginError(f'{source}: the loader "{name}" ({place}) is not there: {exc}') from exc
    return found
