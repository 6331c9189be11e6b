"""Keys of sealed files, from where no process list and no shell history shows them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path

from atomserve.errors import ConfigError

LENGTH = 32
"""Bytes of a key."""

_HEX = re.compile(rb"[0-9a-fA-F]+")


def key_from_file(path: str | os.PathLike[str]) -> bytes:
    """Return the key in a file: 32 bytes as they are, or in hex or base64.

    Raises `ConfigError` for a file that cannot be read or holds no key.
    """
    try:
        with Path(path).open("rb") as file:
            held = file.read(4096)
    except OSError as exc:
        raise ConfigError(f"{path}: the key cannot be read ({exc.strerror})") from exc
    if len(held) == LENGTH and not _HEX.fullmatch(held):  # hex of 16 bytes is a key of another kind
        return held
    return _decoded(held, str(path))


def key_from_variable(name: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """Return the key in the environment variable ``name``, in hex or base64.

    Raises `ConfigError` if there is none.
    """
    if not (text := environ.get(name, "")):
        raise ConfigError(f"{name}: this environment variable holds no key: it is not set")
    return _decoded(os.fsencode(text), name)


def checked(key: bytes) -> bytes:
    """Return ``key``; raise `ConfigError` if it is none."""
    if not isinstance(key, bytes | bytearray) or len(key) != LENGTH:
        raise ConfigError(f"a key has {LENGTH} bytes: read it with key_from_file")
    return bytes(key)


def _decoded(text: bytes, origin: str) -> bytes:
    text = text.strip()
    try:
        is_hex = _HEX.fullmatch(text)
        key = bytes.fromhex(text.decode()) if is_hex else base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != LENGTH:
        raise ConfigError(f"{origin}: expected a key of {LENGTH} bytes, in hex or base64")
    return key
