"""The options of one registrar, converted and refused by name."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from atomserve.errors import ConfigError
from atomserve.settings import RegistrationSettings

META = frozenset(
    {
        *("abilityCode", "abilityCodeInstance", "abilityDependAtomCodes", "atomCode"),
        "requestUrl",
    }
)
"""What the variable META says stands among the options, whichever registrar was chosen."""

T = TypeVar("T", bound=msgspec.Struct)


def options_of(settings: RegistrationSettings, kind: type[T]) -> T:
    """Return the options as a ``kind``.

    Raises:
        ConfigError: they do not fit.
    """
    known = msgspec.structs.fields(kind)
    foreign = META - {field.encode_name for field in known}
    given = {name: value for name, value in settings.options.items() if name not in foreign}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as exc:
        where = f"registration.options, for {settings.registrar}"
        raise ConfigError(f"{where}: {exc}") from exc
