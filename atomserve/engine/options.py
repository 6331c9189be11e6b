"""How one model is served: the wrapper's defaults under what the operator set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from atomserve.settings import (
    Count,
    Executor,
    MiB,
    ModelSettings,
    Positive,
    Settings,
    TenantSettings,
)
from atomserve.units import Bytes, Seconds, Timeout
from atomserve.wrapper import Wrapper


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The decided settings of one model; see `atomserve.wrapper.Wrapper` for what each means."""

    executor: Executor = "process"
    slots: Count = 1
    capacity: Count = 1
    timeout: Timeout = 60.0
    grace: Seconds = 1.0
    startup_timeout: Timeout = 600.0
    stream_timeout: Timeout | None = None
    queue_size: Count = 32
    idempotent: bool = False
    cancel: Literal["run", "kill"] = "run"
    max_batch_size: Count = 32
    max_batch_delay: Seconds = 0.005
    batch_key: str = ""
    batch_cost: str = ""
    max_batch_cost: Positive | None = None
    bisect: bool = True
    target_latency: Timeout | None = None
    cacheable: bool = False
    cache_size: Bytes = 64 * MiB
    cache_ttl: Timeout = 300.0
    devices: tuple[str, ...] = ()
    threads: Count | None = None
    env: dict[str, str] = {}
    max_memory: Bytes | None = None
    max_requests: Count | None = None
    crash_limit: str = "5/60s"
    spares: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    unload_timeout: Seconds = 5.0
    api_processes: Count = 1
    tenants: dict[str, TenantSettings] = {}

    @property
    def places(self) -> int:
        """How many requests may wait in each API process: its share of ``queue_size``."""
        return -(-self.queue_size // self.api_processes)


def class_options(cls: type[Wrapper]) -> dict[str, Any]:
    """Return what ``cls`` says by its class attributes."""
    return {name: getattr(cls, name) for name in Options.__struct_fields__ if hasattr(cls, name)}


def decide(wanted: dict[str, Any], settings: Settings, model: ModelSettings) -> Options:
    """Lay the operator's word, for this model or for all, over what the class ``wanted``.

    Raises:
        msgspec.ValidationError: a class attribute is of the wrong type.
    """
    decided = dict(wanted)
    for name in ("executor", "slots"):
        if (value := getattr(settings, name)) is not None:
            decided[name] = value
    for name in Options.__struct_fields__:
        if (value := getattr(model, name, None)) is not None:
            decided[name] = value
    for name in ("unload_timeout", "api_processes", "tenants"):
        decided[name] = getattr(settings, name)
    return msgspec.convert(decided, Options)
