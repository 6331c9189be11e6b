"""META, the JSON document that linker_atom's control plane hands down to a service."""

from __future__ import annotations

from typing import Annotated

import msgspec

from atomserve.errors import ConfigError

HEALTH_PATH = "/v1/health/ping"


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What the control plane hands down; unknown keys are ignored."""

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


def read_meta(text: str) -> Meta:
    """Decode META; raises `ConfigError` with one line that does not repeat what stands there."""
    try:
        return msgspec.json.decode(text.encode(), type=Meta, strict=False)  # a port may be text
    except (ValueError, msgspec.MsgspecError) as exc:
        raise ConfigError(
            f"META (environment META): expected a JSON object as the control plane writes it: {exc}"
        ) from exc
