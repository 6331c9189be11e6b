"""Values as a log may show them: cut to a length that people read, and without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

TEXT = 200
"""Characters of a text that are shown."""
DATA = 20
"""Bytes that are shown."""
ITEMS = 10
"""Items of a list that are shown."""
MASK = "***"

_MOST_KEYS = 50
_DEEPEST = 8
_SECRET_HEADER = re.compile(
    r"auth|cookie|api[-_]?key|token|secret|passw|signature|credential", re.IGNORECASE
).search
# Whole names only, for a parameter called max_tokens is no secret.
_SECRET_NAME = re.compile(
    r"(x[-_]?)?(authorization|(set[-_]?)?cookies?|auth|(api|access|secret|private)[-_]?key"
    r"|((access|refresh|auth|id|bearer)[-_]?)?token|(client[-_]?)?secret|pass(word|wd|phrase)?"
    r"|credentials?|signature)",
    re.IGNORECASE,
).fullmatch
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def cut(value: Any, *, items: int = ITEMS, deepest: int = _DEEPEST) -> Any:
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
            name: MASK if secret(name) else cut(each, items=items, deepest=deepest - 1)
            for name, each in some
        }
    if isinstance(value, list | tuple):
        return [cut(each, items=items, deepest=deepest - 1) for each in value[:items]]
    return value


def secret(name: object) -> bool:
    """Say whether a parameter of this name holds a secret."""
    return isinstance(name, str) and _SECRET_NAME(name) is not None


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header fields, cut; of those that may hold a secret the names alone."""
    return {
        name: MASK if _SECRET_HEADER(name) else value[:TEXT]
        for name, value in list(headers)[:_MOST_KEYS]
    }


def shown_url(url: str) -> str:
    """Return ``url`` without the user and password that it may name, and without its secrets."""
    bare, mark, query = _USER.sub(MASK, url).partition("?")
    parts = [
        f"{name}={MASK}" if secret(name) else part
        for part in query.split("&")
        for name in [part.partition("=")[0]]
    ]
    return f"{bare}{mark}{'&'.join(parts)}"[:TEXT]


def shown_call(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a call of an HTTP client, cut and masked."""
    shown = dict(options)
    for name in ("headers", "cookies", "proxies"):
        if isinstance(shown.get(name), Mapping):
            fields = shown_headers((str(key), str(value)) for key, value in shown[name].items())
            shown[name] = fields if name == "headers" else dict.fromkeys(fields, MASK)
    for name in ("auth", "cert"):
        if shown.get(name) is not None:
            shown[name] = MASK
    return {name: cut(value) for name, value in shown.items()}
