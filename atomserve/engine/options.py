"""How one model is served: the wrapper's defaults under what the operator set."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from atomserve.settings import ModelSettings, Settings
from atomserve.wrapper import Wrapper


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The decided settings of one model; see `atomserve.wrapper.Wrapper` for what each means."""

    executor: Literal["process", "thread"] = "process"
    slots: int = 1
    capacity: int = 1
    timeout: float = 60.0
    grace: float = 1.0
    startup_timeout: float = 600.0
    stream_timeout: float | None = None
    queue_size: int = 32
    idempotent: bool = False
    cancel: Literal["run", "kill"] = "run"
    devices: tuple[str, ...] = ()
    threads: int | None = None
    env: dict[str, str] = {}
    max_memory: int | None = None
    max_requests: int | None = None
    crash_limit: str = "5/60s"
    spares: int = 0
    unload_timeout: float = 5.0


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
    decided["unload_timeout"] = settings.unload_timeout
    return msgspec.convert(decided, Options)
