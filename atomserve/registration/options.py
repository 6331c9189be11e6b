"""The options of one registrar, converted and refused by name."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from atomserve.errors import ConfigError
from atomserve.settings import RegistrationSettings

T = TypeVar("T")


def options_of(settings: RegistrationSettings, kind: type[T]) -> T:
    """Return the options as a ``kind``.

    Raises:
        ConfigError: they do not fit.
    """
    try:
        return msgspec.convert(settings.options, kind)
    except msgspec.ValidationError as exc:
        where = f"registration.options, for {settings.registrar}"
        raise ConfigError(f"{where}: {exc}") from exc
