"""The variables that linker_atom's deployments set, META among them, as settings of ours."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from atomserve.errors import ConfigError
from atomserve.settings import Settings

META = "META"
HOST_NODE_NAME = "HOST_NODE_NAME"
LOG_DIR = "LOG_DIR"
LOG_FOLDER = "logs"
HEALTH_PATH = "/v1/health/ping"

VARIABLES = {
    "ATOM_WORKERS": "api_processes",
    "ATOM_PORT": "port",
    "ATOM_API_PREFIX": "prefix",
    "ATOM_TITLE": "title",
    "ATOM_DESC": "description",
    "DOCS_SWITCH": "docs",
    "PROFILING": "linker.profiling",
    "LOG_BACKUP_COUNT": "logs.keep",
    "LOG_FILE_MAX_BYTES": "logs.max_bytes",
    "SW_SWITCH": "skywalking.enabled",
    "SW_AGENT_COLLECTOR_BACKEND_SERVICES": "skywalking.collector",
    "SW_AGENT_NAME": "skywalking.service",
    "SW_AGENT_INSTANCE_NAME": "skywalking.instance",
    "SW_AGENT_LOG_REPORTER_ACTIVE": "skywalking.report_logs",
    "SW_AGENT_LOG_REPORTER_LEVEL": "skywalking.log_level",
}
"""Variables that mean one setting each, by its dotted path."""

OPTIONS = ("abilityCode", "abilityCodeInstance", "abilityDependAtomCodes", "atomCode")
SOURCES = {
    "registration.registrar": ("META.servingHost",),
    "registration.url": ("META.servingHost", HOST_NODE_NAME, "META.servingPort"),
    "registration.advertise": ("META.svcAddress",),
    "registration.options": (
        *(f"META.{key}" for key in OPTIONS),
        "META.svcAddress",
        "META.atomProcessUrl",
    ),
    "logs.folder": (LOG_DIR,),
    "logs.name": (LOG_DIR,),
    "linker.health_path": ("META.k8sHealthcheckUrl",),
}
"""The keys of META, and variables, that a setting, by its dotted path, is made of."""

_LEVELS = {"WARN": "warning", "FATAL": "critical", "NOTSET": "debug"}
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")  # Kubernetes' ATOM_PORT, for a service `atom`


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What the control plane hands down to a service; unknown keys are ignored."""

    servingHost: str = ""
    servingPort: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 80
    abilityCode: str = ""
    abilityCodeInstance: str = ""
    abilityDependAtomCodes: list[str] = []
    atomCode: str = ""
    modelIds: str = ""
    svcAddress: str = ""
    atomProcessUrl: str = "/atom/process"
    k8sHealthcheckUrl: str = HEALTH_PATH

    @property
    def request_url(self) -> str:
        """Where the control plane reaches this service."""
        return self.svcAddress + self.atomProcessUrl

    def base_url(self, host: str) -> str:
        """Return the control plane's; it runs on ``host`` unless the document says where."""
        host = self.servingHost or host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.servingPort}"


class Override(NamedTuple):
    """What one variable says of one setting; ``within`` is the place in one that is a table."""

    path: str
    value: Any
    origin: str
    within: tuple[str, ...] = ()


def read_meta(text: str) -> Meta:
    """Decode META; raises `ConfigError` with one line that does not repeat what stands there."""
    try:
        meta = msgspec.json.decode(text.encode(), type=Meta, strict=False)  # a port may be text
    except (ValueError, msgspec.MsgspecError) as exc:
        reason = "not text" if isinstance(exc, UnicodeError) else exc
        raise ConfigError(
            f"{META} (environment {META}): expected a JSON object as the control plane writes "
            f"it: {reason}"
        ) from exc
    if not _is_host(meta.servingHost):
        raise ConfigError(
            f"{META}.servingHost (environment {META}): expected a host's name or address, "
            "without scheme and port"
        )
    return meta


def overrides(environ: Mapping[str, str]) -> Iterator[Override]:
    """Yield what linker_atom's variables in ``environ`` say; empty ones say nothing.

    Raises `ConfigError` for a META that is none.
    """
    for name, path in VARIABLES.items():
        value = environ.get(name, "")
        if path == "skywalking.log_level":
            value = _LEVELS.get(value.upper(), value.lower())
        if value and not _SERVICE_ADDRESS.match(value):
            yield Override(path, value, f"environment {name}")
    if folder := environ.get(LOG_DIR, "").rstrip("/"):
        # linker_atom writes to logs/LOG_DIR/HOST/20260131-0001-LOG_DIR.log.
        yield Override("logs.folder", os.path.join(LOG_FOLDER, folder), f"environment {LOG_DIR}")
        yield Override("logs.name", os.path.basename(folder), f"environment {LOG_DIR}")
    if text := environ.get(META, ""):
        yield from _meta_overrides(read_meta(text), environ)


def told_by_app(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return ``settings`` with what a hosted file has set in ``environ`` while it was imported.

    What the operator has said, in whichever way, stays: only defaults give way.
    """
    tree = msgspec.to_builtins(settings)
    defaults = msgspec.to_builtins(Settings())
    for path, value, _, within in overrides(environ):
        *above, name = path.split(".")
        branch, default = tree, defaults
        for part in above:
            branch, default = branch[part], default[part]
        if within:
            branch[name].setdefault(within[0], value)
        elif branch[name] == default[name]:
            branch[name] = value
    return msgspec.convert(tree, Settings, strict=False)


def _meta_overrides(meta: Meta, environ: Mapping[str, str]) -> Iterator[Override]:
    if meta.servingHost:
        yield Override("registration.registrar", "linker", "environment META.servingHost")
        host, source = meta.servingHost, "META.servingHost"
    elif named := environ.get(HOST_NODE_NAME, ""):
        if not _is_host(named):
            raise ConfigError(f"{HOST_NODE_NAME} (environment): expected a host's name or address")
        host, source = named, HOST_NODE_NAME
    else:
        host, source = socket.gethostname(), META
    origin = f"environment {source}, META.servingPort"
    yield Override("registration.url", meta.base_url(host), origin)
    if meta.svcAddress:
        yield Override("registration.advertise", meta.svcAddress, "environment META.svcAddress")
    health = "environment META.k8sHealthcheckUrl"
    yield Override("linker.health_path", meta.k8sHealthcheckUrl, health)
    for key in OPTIONS:
        if value := getattr(meta, key):
            yield Override("registration.options", value, f"environment META.{key}", (key,))
    origin = "environment META.svcAddress, META.atomProcessUrl"
    yield Override("registration.options", meta.request_url, origin, ("requestUrl",))


def _is_host(text: str) -> bool:
    if ":" not in text:
        return not re.search(r"[^\w.-]", text)
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
