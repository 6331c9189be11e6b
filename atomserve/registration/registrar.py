"""What a registrar is: the few calls by which a control plane is told of an instance."""

from __future__ import annotations

from typing import Protocol

import msgspec


class CallFailed(Exception):
    """The control plane did not do what it was asked; the text may be shown to anybody."""


class Forgotten(CallFailed):
    """The control plane does not know this instance any more: it has to register again."""


class Announced(msgspec.Struct, frozen=True):
    """What a control plane is told of an instance."""

    instance: str
    """Its name; another boot, or by mistake another process, may have the same."""
    url: str
    """Where it is reached; empty if nobody knows."""
    boot: str
    """Random, the same from its start to its end."""
    epoch: int
    """Grows with each registration, and from boot to boot as far as the clock does."""


class Load(msgspec.Struct, frozen=True):
    """How busy an instance is, over all its API processes."""

    in_flight: int = 0
    """Requests that have begun and not ended."""
    waiting: int = 0
    """Of these, jobs that wait for a slot."""
    running: int = 0
    """Of these, jobs that a slot has."""
    places: int = 0
    """Jobs that may wait."""

    def __str__(self) -> str:
        return (
            f"{self.in_flight} in flight, {self.running} running, "
            f"{self.waiting} of {self.places} waiting"
        )


class Registrar(Protocol):
    """Speaks to one kind of control plane; runs in the supervisor, on its event loop.

    One call runs at a time. It returns when the control plane agreed, and raises otherwise:
    whatever it raises is a failure, `CallFailed` one whose text may be shown, `Forgotten` the one
    that is answered by a registration. How long a call may take, and when the next one comes, is
    decided elsewhere: a call that takes too long is cancelled, and must let itself be cancelled.
    It must not block.

    An entry point of the group ``atomserve.registrars`` names what makes one of the
    `atomserve.settings.RegistrationSettings`; that raises `atomserve.errors.ConfigError` for what
    does not fit, before the server starts.
    """

    carries_load: bool
    """Whether ``heartbeat`` passes the load on; if not, nobody is asked for it."""

    async def register(self, announced: Announced) -> None:
        """Tell that the instance takes requests."""

    async def heartbeat(self, announced: Announced, load: Load) -> None:
        """Tell that it still does."""

    async def withdraw(self, announced: Announced) -> None:
        """Tell that it will not for much longer."""

    async def aclose(self) -> None:
        """Let go of everything; no call comes after this one."""
