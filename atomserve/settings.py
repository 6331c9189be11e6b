"""What the operator decided: decoded once, frozen, every value with its origin."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

MiB = 1024 * 1024

Executor = Literal["process", "thread"]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what one client, and all clients together, may make the server hold."""

    body: int = 64 * MiB
    """Largest request body, bytes."""
    bodies_in_flight: int = 512 * MiB
    """All request bodies held at once, bytes."""
    headers: int = 100
    """Most header fields of a request."""
    header_bytes: int = 32 * 1024
    """Most bytes of a request's header fields, names and values together."""
    min_rate: int = 1024
    """Slowest body, bytes per second, once ``min_rate_grace`` has passed."""
    min_rate_grace: float = 10.0
    """Seconds before ``min_rate`` counts."""
    chunks: int = 65_536
    """Most pieces that a body may arrive in."""


class Cors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which web pages of other origins may call; nobody unless origins are listed."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET", "POST", "OPTIONS")
    headers: tuple[str, ...] = ("*",)
    credentials: bool = False
    max_age: int = 600


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator says of one model; the wrapper's class attributes decide the rest."""

    plugin: str | None = None
    """Which plugin this model serves, as for ``--plugins``; the model's own name if unset."""
    executor: Executor | None = None
    slots: int | None = None
    capacity: int | None = None
    timeout: float | None = None
    grace: float | None = None
    startup_timeout: float | None = None
    stream_timeout: float | None = None
    queue_size: int | None = None
    config: dict[str, Any] = {}
    """Handed to ``Wrapper.load``."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of one instance."""

    plugins: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free port; it is printed."""
    uds: str | None = None
    """A unix socket's path, instead of host and port."""
    api_processes: int = 1
    server: Literal["hypercorn"] = "hypercorn"
    executor: Executor | None = None
    slots: int | None = None
    prefix: str = ""
    certfile: str | None = None
    keyfile: str | None = None
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: bool = True
    drain_delay: float = 5.0
    """Seconds during which a draining server still accepts."""
    drain_timeout: float = 20.0
    """Seconds that requests in flight get to finish."""
    unload_timeout: float = 5.0
    """Seconds that a wrapper's ``unload`` gets."""
    keep_alive: float = 75.0
    header_timeout: float = 10.0
    readiness: Literal["all", "any"] = "all"
    docs: bool = True
    limits: Limits = Limits()
    cors: Cors = Cors()
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose Forwarded headers are believed."""
    models: dict[str, ModelSettings] = {}
