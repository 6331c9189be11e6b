"""The environment variables that a service's `settings` are made of, read and written."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from atomserve.configuration.catalogue import catalogue
from atomserve.errors import ConfigError
from atomserve.settings import Settings

ALLOWED_PROFILING = "ATOMSERVE_LINKER__PROFILING_ON_REQUEST"
LOGGED_PARAMETERS = "ATOMSERVE_LINKER__LOG_PARAMETERS"

_ANY_FLAG = catalogue()["docs",]


class Variables:
    """Variables by name, each read as what it has to be; an empty one says nothing.

    ``lenient`` ones say nothing, either, if they are wrong: telemetry must not stop a service, and
    the server has warned of them.
    """

    def __init__(self, environ: Mapping[str, str], *, lenient: bool = False) -> None:
        self._environ = environ
        self._lenient = lenient

    def text(self, name: str, default: str = "") -> str:
        """Return the text of ``name``."""
        return self._environ.get(name) or default

    def number(self, name: str, default: int, *, least: int = 0, most: int = 2**63 - 1) -> int:
        """Return the whole number of ``name``; raises `ConfigError` with one line."""
        raw = self.text(name, str(default)).strip()
        if raw.isascii() and raw.isdigit() and least <= int(raw) <= most:
            return int(raw)
        if self._lenient:
            return default
        raise ConfigError(f"{name} = {raw[:80]!r} (environment): expected a whole number")

    def flag(self, name: str, default: bool) -> bool:
        """Return what ``name`` says in any of the words that settings take; raises as above."""
        raw = self.text(name)
        if not raw:
            return default
        try:
            return bool(_ANY_FLAG.read(raw, text=True))
        except (ValueError, msgspec.MsgspecError) as exc:
            if self._lenient:
                return default
            raise ConfigError(
                f"{name} = {raw[:80]!r} (environment): expected {_ANY_FLAG.form}"
            ) from exc


def service_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that tell a service of ``settings``, wherever those were written.

    A service reads its environment alone, so that a flag or a file would be lost on it. A default
    is left out where the service may have one of its own, as with its prefix.
    """
    linker = settings.linker
    flags = {
        "DOCS_SWITCH": settings.docs,
        "PROFILING": linker.profiling,
        ALLOWED_PROFILING: linker.profiling_on_request,
        LOGGED_PARAMETERS: linker.log_parameters,
    }
    found = {name: str(value).lower() for name, value in flags.items()}
    found["ATOM_WORKERS"] = str(settings.api_processes)
    if settings.port:  # else it is not known yet
        found["ATOM_PORT"] = str(settings.port)
    if settings.prefix:
        found["ATOM_API_PREFIX"] = settings.prefix
    return found
