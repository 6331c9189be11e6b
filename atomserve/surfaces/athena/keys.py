"""The keys that Athena requests are signed with, read from their file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from atomserve.errors import ConfigError
from atomserve.surfaces.athena.signing import Key


def read_keys(path: str | None) -> dict[str, Key]:
    """Return the keys in the file at ``path`` by their ``api_key``; none without a file.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    if path is None:
        return {}
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Key])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise ConfigError(f"aiges.keys_file: {path}: {exc}") from exc
    if not found:
        raise ConfigError(f"aiges.keys_file: {path}: there is no key in it")
    return found
