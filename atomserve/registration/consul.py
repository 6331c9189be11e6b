"""The registrar of Consul: a service with a TTL check, kept by the HTTP API of an agent."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from atomserve.registration.client import Answer, ControlPlane
from atomserve.registration.options import options_of
from atomserve.registration.registrar import Announced, CallFailed, Forgotten, Load
from atomserve.settings import RegistrationSettings

AGENT = "http://127.0.0.1:8500"
MISSED = 5
"""Heartbeats that may be lost before a check fails, unless its TTL is said."""
SHORTEST_TTL = 10.0

Duration = Annotated[str, Meta(pattern=r"^[0-9]+(ms|s|m|h)\Z")]


class ConsulOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the service is called, and when it counts as gone."""

    service: str = "atomserve"
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    ttl: Duration = ""
    """How long after a heartbeat the check fails; five heartbeats, and 10 s at least."""
    deregister_after: Duration = "1m"
    """How long the check may have failed before the agent forgets the service."""


class ConsulRegistrar:
    """Registers as `atomserve.registration.registrar.Registrar` says.

    Each boot is a service of its own, so that the late withdrawal of an instance cannot meet its
    successor; one that is killed is forgotten by its TTL.
    """

    carries_load = True

    def __init__(self, settings: RegistrationSettings) -> None:
        self._options = options_of(settings, ConsulOptions)
        self._plane = ControlPlane(settings.url or AGENT, settings)
        seconds = max(SHORTEST_TTL, MISSED * settings.heartbeat)
        self._ttl = self._options.ttl or f"{round(seconds * 1000)}ms"

    def __repr__(self) -> str:
        return f"<ConsulRegistrar {self._options.service} at {self._plane}>"

    async def register(self, announced: Announced) -> None:
        """Register the service with its check, which passes from the start."""
        number = identity(announced)
        service: dict[str, Any] = {
            "ID": number,
            "Name": self._options.service,
            "Tags": self._options.tags,
            "Meta": {
                **self._options.meta,
                "instance": announced.instance,
                "boot": announced.boot,
                "epoch": str(announced.epoch),
                "url": announced.url,
            },
            "Check": {
                "CheckID": f"service:{number}",
                "TTL": self._ttl,
                "Status": "passing",
                "DeregisterCriticalServiceAfter": self._options.deregister_after,
            },
            **address(announced.url),
        }
        params = {"replace-existing-checks": "true"}
        _agreed(await self._put("service/register", service, params))

    async def heartbeat(self, announced: Announced, load: Load) -> None:
        """Let the check pass, with the load as its note."""
        path = f"check/pass/service:{quote(identity(announced), safe='')}"
        answer = await self._put(path, None, {"note": str(load)})
        # Agents of before 1.11 say it with 500.
        if answer.status == 404 or (answer.status == 500 and b"TTL" in answer.body):
            raise Forgotten("it does not know this instance")
        _agreed(answer)

    async def withdraw(self, announced: Announced) -> None:
        """Take the service out of the list."""
        path = f"service/deregister/{quote(identity(announced), safe='')}"
        answer = await self._put(path, None, {})
        if answer.status != 404:  # then it is out of it
            _agreed(answer)

    async def aclose(self) -> None:
        """Let go of the control plane."""
        await self._plane.aclose()

    async def _put(self, path: str, body: Any, params: dict[str, str]) -> Answer:
        return await self._plane.call("PUT", f"/v1/agent/{path}", body, params=params)


def identity(announced: Announced) -> str:
    """Return what tells this boot of the instance from any other."""
    return f"{announced.instance}-{announced.boot}"


def address(url: str) -> dict[str, Any]:
    """Return host and port of ``url`` as a service has them; without, it is at its agent's."""
    parts = urlsplit(url)
    if not parts.hostname:
        return {}
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"Address": parts.hostname, "Port": port}


def _agreed(answer: Answer) -> None:
    if answer.status != 200:
        raise CallFailed(f"it answered with status {answer.status}")
