"""The registrars there are, by name: those of our own, and those that are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from atomserve.configuration.conflicts import registration_conflicts
from atomserve.errors import AtomError, ConfigError
from atomserve.plugins import installed
from atomserve.registration.registrar import Registrar
from atomserve.settings import RegistrationSettings

REGISTRARS = "atomserve.registrars"
OWN = {
    "linker": "atomserve.registration.linker:LinkerRegistrar",
    "consul": "atomserve.registration.consul:ConsulRegistrar",
    "file": "atomserve.registration.file:FileRegistrar",
}
"""Registrars that are always there; pyproject.toml lists them, too."""


def registrar_for(settings: RegistrationSettings) -> Registrar:
    """Make the registrar that the settings name; its code is imported here.

    Raises:
        ConfigError: there is none of that name, or the settings do not fit it.
    """
    for path, advice in registration_conflicts(settings):
        raise ConfigError(f"{path}: {advice}")
    make = _maker(settings.registrar)
    try:
        return cast("Registrar", make(settings))
    except AtomError as exc:
        raise ConfigError(str(exc)) from exc
    except Exception as exc:
        raise _unusable(settings.registrar, exc) from exc


def known() -> dict[str, str]:
    """Return where each registrar lies, by its name."""
    return {row.name: row.value for row in installed(REGISTRARS)} | OWN


def _maker(name: str) -> Callable[[RegistrationSettings], Any]:
    places = known()
    if name not in places:
        listed = ", ".join(sorted(places))
        raise ConfigError(
            f'registration.registrar: no registrar "{name}" is installed (installed: {listed})'
        )
    module, _, attribute = places[name].partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as exc:
        raise _unusable(name, exc) from exc
    return cast("Callable[[RegistrationSettings], Any]", found)


def _unusable(name: str, exc: Exception) -> ConfigError:
    words = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
    return ConfigError(f'registration.registrar: "{name}" cannot be used: {words}')
