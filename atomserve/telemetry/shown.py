"""Values as a log may show them: cut to a length that people read, and without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atomserve.telemetry.secrets import MASK, is_secret, masked

TEXT = 200
"""Characters of a text that are shown."""
DATA = 20
"""Bytes that are shown."""
ITEMS = 10
"""Items of a list that are shown."""

_MOST_KEYS = 50
_DEEPEST = 8


def cut(value: Any, deepest: int = _DEEPEST) -> Any:
    """Return ``value`` with long texts, bytes and lists cut, in tables and lists, too.

    What stands under a name that tells of a secret is masked. Other objects stay as they are.
    """
    if isinstance(value, str):
        return value[:TEXT]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:DATA])
    if isinstance(value, dict | list | tuple) and not deepest:
        return "..."
    if isinstance(value, dict):
        some = list(value.items())[:_MOST_KEYS]
        return {
            name: MASK if is_secret(str(name)) else cut(each, deepest - 1) for name, each in some
        }
    if isinstance(value, list | tuple):
        return [cut(each, deepest - 1) for each in value[:ITEMS]]
    return value


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header fields, cut; of those that hold a secret the names alone."""
    shown: dict[str, str] = cut(dict(headers))
    return shown


def shown_call(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a call of an HTTP client says, its keyword arguments as well, cut and masked."""
    proofs = dict.fromkeys(("auth", "cert", "cookies", "proxies"), MASK)
    hidden = {name: MASK for name in proofs if options.get(name) is not None}
    return {"url": cut(masked(url)), **cut({**options, **hidden})}
