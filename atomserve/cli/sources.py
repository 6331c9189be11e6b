"""Find the one wrapper that a command is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from atomserve.settings import Settings
    from atomserve.signature import Contract
    from atomserve.wrapper import Wrapper


class Found(NamedTuple):
    """A wrapper, the name that it is served under, and its contract."""

    name: str
    cls: type[Wrapper]
    contract: Contract
    settings: Settings


def aiges_path(plugin: str) -> str | None:
    """Return the path in ``[NAME=]aiges:PATH``; None for what names another plugin."""
    name, given, target = plugin.partition("=")
    loader, colon, path = (target if given else name).strip().partition(":")
    return path if loader == "aiges" and colon else None


def find(plugin: str) -> Found:
    """Import the class that ``plugin`` (as for ``--plugins``) names, and read its contract.

    Raises:
        PluginError: it cannot be found, imported or understood.
    """
    import os

    from atomserve.configuration.load import load_settings
    from atomserve.errors import PluginError
    from atomserve.loading import load_class, served_name
    from atomserve.plugins import installed, resolve
    from atomserve.settings import Settings
    from atomserve.signature import read_contract
    from atomserve.wrapper import Wrapper

    sources = resolve(Settings(plugins=(plugin,)), installed())
    if len(sources) != 1:
        raise PluginError(f"{plugin}: expected one plugin")
    cls = load_class(sources[0], base=Wrapper)
    name = served_name(sources[0], cls)
    settings = load_settings(config_file=None, environ=os.environ, flags={}).settings
    return Found(name, cls, read_contract(cls, plugin=name), settings)
