"""What an `aiges.toml` says that matters here, and what in it does not."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from atomserve.errors import ConfigError

_IGNORED = frozenset(
    [
        "pprof",
        "dataProcess",
        "downAsync",
        "log",
        "trace",
        "sonar",
        "lbv2",
        "elog",
        "auth",
        "resource",
        "xsf",
        "meterCtrl",
        "janusCtrl",
    ]
)
"""Sections of the engine's surroundings: logging, discovery, metering, task queues."""
_SERVICE = frozenset(["host", "port", "finder", "http_listen", "netcard", "grpc", "reuseport"])
_IGNORED_KEYS = {
    "aiges": frozenset(
        [
            "realTimeRlt",
            "usrCfg",
            "sessDelGt",
            "httpRetry",
            "gray",
            "wrapperTrace",
            "storageData",
            "asyncRelease",
            "pythonPluginCmd",
            "numaNode",
        ]
    ),
    "fc": frozenset(["able", "router", "best", "roll", "strategy"]),
    "ws": frozenset(),
}


_INSTEAD = {
    "fc.ttl": "ws.readTimeout and ws.sessionTimeout end sessions",
    "aiges.wrapperDelayDetectPeriod": "timeout and grace of the model find a copy that hangs",
}
"""What people expect something of that nothing here does by that name."""


class AigesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an ``aiges.toml`` that atomserve follows; None is "not said"."""

    wrapper: dict[str, str] = {}
    """What `wrapperInit` gets: every value is text."""
    licences: int | None = None
    """``fc.max``: how many sessions at once."""
    stream: bool = False
    """``aiges.sessMode``."""
    asynchronous: bool | None = None
    """``aiges.asyncMode``: results come by callback."""
    sub: str = "ase"
    header_pass: tuple[str, ...] = ()
    """Names in a request's header that are parameters, too."""
    read_timeout: float | None = None
    session_timeout: float | None = None
    listen: str = ""
    unknown: tuple[str, ...] = ()
    """Keys that nothing here knows, to be warned of."""
    idle: Mapping[str, str] = {}
    """Keys that are known and change nothing, with what to set instead; to be warned of."""


def read_config(path: Path) -> AigesConfig:
    """Read an ``aiges.toml``.

    Raises `ConfigError` for one that cannot be read, or that has a list in ``[wrapper]``.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    try:
        return parse_config(document)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{path}: {exc}") from exc


def parse_config(document: Mapping[str, Any]) -> AigesConfig:
    """Make sense of a document's sections.

    Raises `ConfigError` for a list in ``[wrapper]``, and TypeError or ValueError for a number
    that is none.
    """
    aiges, limits, sockets = (_section(document, name) for name in ("aiges", "fc", "ws"))
    wrapper = texts(_section(document, "wrapper"))
    service = _service(document)
    return AigesConfig(
        wrapper=wrapper,
        licences=_optional(limits, "max", int),
        stream=_truth(aiges.get("sessMode")) or False,
        asynchronous=_truth(aiges.get("asyncMode")),
        sub=str(aiges.get("sub", "ase")),
        header_pass=tuple(name for name in str(aiges.get("headerPass", "")).split(";") if name),
        read_timeout=_optional(sockets, "readTimeout", float),
        session_timeout=_optional(sockets, "sessionTimeout", float),
        listen=wrapper.get("http_listen") or str(service.get("http_listen", "")),
        unknown=tuple(_unknown(document)),
        idle={key: told for key, told in _INSTEAD.items() if key in _keys(document)},
    )


def texts(*tables: Mapping[str, Any]) -> dict[str, str]:
    """Return what a wrapper gets for its configuration; later tables win, keys are flat.

    Raises `ConfigError` for a list.
    """
    return {key: value for table in tables for key, value in _flat(table, "")}


def text_of(value: object) -> str:
    """Return a scalar as the text that wrappers get: ``1``, ``0.5``, ``true``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
        plain = format(Decimal(repr(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    return str(value)


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            raise ConfigError(f"wrapper.{prefix}{name}: a wrapper's configuration has no lists")
        else:
            yield prefix + name, text_of(value)


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = document.get(name, {})
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name}: should be a section")
    return section


def _service(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the section that is called after the service, known by its keys alone."""
    return next((section for _, section in _services(document)), {})


def _services(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, section in document.items():
        if name in _KNOWN or name in _IGNORED or not isinstance(section, Mapping):
            continue
        if section.keys() & _SERVICE:
            yield name, section


_KNOWN = {
    "aiges": frozenset(["sessMode", "asyncMode", "sub", "headerPass", "wrapperDelayDetectPeriod"]),
    "fc": frozenset({"max", "ttl"}),
    "ws": frozenset({"readTimeout", "sessionTimeout"}),
    "wrapper": frozenset[str](),
}


def _unknown(document: Mapping[str, Any]) -> Iterator[str]:
    services = dict(_services(document))
    for name, section in document.items():
        if name in _IGNORED or name == "wrapper":
            continue
        if name in services:
            yield from (f"{name}.{key}" for key in section if key not in _SERVICE)
        elif name in _KNOWN:
            known = _KNOWN[name] | _IGNORED_KEYS[name]
            yield from (f"{name}.{key}" for key in section if key not in known)
        else:
            yield name


def _keys(document: Mapping[str, Any]) -> set[str]:
    return {f"{name}.{key}" for name in ("aiges", "fc") for key in _section(document, name)}


def _optional(section: Mapping[str, Any], key: str, kind: Any) -> Any:
    return None if key not in section else kind(section[key])


def _truth(value: object) -> bool | None:
    if value is None:
        return None
    return value if isinstance(value, bool) else str(value).strip().lower() in ("true", "1", "yes")
