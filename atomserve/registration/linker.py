"""The registrar of linker_atom's control plane, Serving."""

from __future__ import annotations

from typing import Any

import msgspec

from atomserve.registration.client import ControlPlane
from atomserve.registration.options import options_of
from atomserve.registration.registrar import Announced, CallFailed, Forgotten, Load
from atomserve.settings import RegistrationSettings

AGREED = "0"
"""A string: the number 0 is an answer of something else."""
AGAIN = "register"


class LinkerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Serving wants to know, each under Serving's own name."""

    abilityCode: str = ""
    abilityCodeInstance: str = ""
    abilityDependAtomCodes: tuple[str, ...] = ()
    atomCode: str = ""
    requestUrl: str = ""
    """Where requests go; if empty, to what the instance advertises."""


class Reply(msgspec.Struct, frozen=True):
    """What is read of an answer."""

    code: Any = None
    data: Any = None


class LinkerRegistrar:
    """Registers by POST, as `atomserve.registration.registrar.Registrar` says.

    Serving knows an instance by its name alone: two of one name are one to it.
    """

    carries_load = False

    def __init__(self, settings: RegistrationSettings) -> None:
        self._options = options_of(settings, LinkerOptions)
        self._plane = ControlPlane(settings.url, settings)

    def __repr__(self) -> str:
        return f"<LinkerRegistrar {self._plane}>"

    async def register(self, announced: Announced) -> None:
        """Tell Serving all about the instance."""
        about = msgspec.to_builtins(self._options)
        about["requestUrl"] = self._options.requestUrl or announced.url
        await self._post("register", {**about, "atomInstanceName": announced.instance})

    async def heartbeat(self, announced: Announced, load: Load) -> None:
        """Tell Serving that the instance is there; the load has no place in its protocol."""
        reply = await self._post("health", {"atomInstanceName": announced.instance})
        if reply.data == AGAIN:
            raise Forgotten("it asks to register again")

    async def withdraw(self, announced: Announced) -> None:
        """Tell Serving that the instance goes."""
        await self._post("unRegister", {"atomInstanceName": announced.instance})

    async def aclose(self) -> None:
        """Let go of the control plane."""
        await self._plane.aclose()

    async def _post(self, what: str, body: dict[str, Any]) -> Reply:
        answer = await self._plane.call("POST", f"/atom/{what}", body)
        if answer.status != 200:
            raise CallFailed(f"it answered with status {answer.status}")
        try:
            reply = msgspec.json.decode(answer.body, type=Reply)
        except (ValueError, RecursionError) as exc:
            raise CallFailed("its answer is no JSON object") from exc
        if reply.code != AGREED:
            shown = msgspec.json.encode(reply.code)[:40].decode("utf-8", "replace")
            raise CallFailed(f'its code is {shown}, not "0"')
        return reply
