"""Find the one wrapper that a command is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from atomserve.backends.prepared import Prepared
    from atomserve.plugins import Source
    from atomserve.settings import Settings


class Found(NamedTuple):
    """A model, ready to be loaded, and the settings under which it would be served."""

    model: Prepared
    settings: Settings


def aiges_path(plugin: str) -> str | None:
    """Return the path in ``[NAME=]aiges:PATH``; None for what names another plugin."""
    name, given, target = plugin.partition("=")
    loader, colon, path = (target if given else name).strip().partition(":")
    return path if loader == "aiges" and colon else None


def app_source(plugin: str) -> Source | None:
    """Return the source of the app that ``plugin`` names; None if it names something else.

    Raises `PluginError` for one that is not there.
    """
    from atomserve.plugins import APP_LOADERS, resolve
    from atomserve.settings import Settings

    name, given, target = plugin.partition("=")
    loader, colon, _ = (target if given else name).strip().partition(":")
    if not colon or loader not in APP_LOADERS:
        return None
    sources = resolve(Settings(plugins=(plugin,)), ())
    return sources[0] if len(sources) == 1 else None


def find(plugin: str) -> Found:
    """Import what ``plugin`` (as for ``--plugins``) names, and prepare it as it would be served.

    Raises:
        PluginError: it cannot be found, imported or understood.
        ConfigError: a setting is wrong.
    """
    import os

    from atomserve.backends.prepared import prepare
    from atomserve.configuration.load import load_settings
    from atomserve.errors import PluginError
    from atomserve.plugins import installed, loaders, resolve
    from atomserve.settings import Settings

    sources = resolve(Settings(plugins=(plugin,)), installed(), loaders())
    if len(sources) != 1:
        raise PluginError(f"{plugin}: expected one plugin")
    settings = load_settings(config_file=None, environ=os.environ, flags={}).settings
    return Found(prepare(sources[0], settings), settings)
