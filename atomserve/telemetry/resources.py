"""What is told of the resources that models have loaded beside their wrappers."""

from __future__ import annotations

from typing import Literal

import msgspec


class CopyStatus(msgspec.Struct, frozen=True):
    """One worker, and what became of the resource in it."""

    slot: int | None
    """None for a spare."""
    pid: int | None
    """None where a slot has no worker now: the next one loads the resource when it starts."""
    state: Literal["loaded", "unloaded", "failed", "silent", "lost", "starting"]
    """``silent`` is one that has not answered in time, ``lost`` one that ended meanwhile."""
    code: str = ""
    detail: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What became of an order to load or unload ``resource``: done in every slot, or not done."""

    model: str
    resource: str
    done: bool
    slots: list[CopyStatus]


class Held(msgspec.Struct, frozen=True):
    """A resource that a model has loaded."""

    resource: str
    media_type: str
    size: int
    unloading: bool
    """It was to be unloaded, and some slot has not: no new worker loads it."""
    slots: list[CopyStatus]


class ResourceList(msgspec.Struct, frozen=True):
    """The resources of each model that can load any."""

    models: dict[str, list[Held]]
