"""What must not stand in a log: values that a name, a form, or the environment shows as secret."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_WORDS = r"authorization|cookie|passw(?:or)?d|passphrase|secret|token|api[_-]?key|credentials?"
_NAME = re.compile(rf"(?:^|.*[^a-z])(?:{_WORDS}|(?:private|access)[_-]key)", re.IGNORECASE)
_IN_TEXT = re.compile(
    rf"""
    # A header's whole value.
    (?P<header>\b(?:authorization|(?:set-)?cookie)(?:["']\s*,|["']?\s*[:=])\s*b?["']?)[^"'\s][^"'\r\n]*
    # A name and its value, as people, Python, JSON and URLs write them; a short number is a count.
    |(?P<name>(?:{_WORDS})["']?\s*[:=]\s*["']?)(?!\d{{1,6}}\b)[^\s"',;&}}\]]+
    |(?P<scheme>\bbearer\s+|\bbasic\s+(?-i:(?=\S*[A-Z\d=])))[\w.~+/=-]{{8,}}
    # A URL's user.
    |(?P<user>://)[^/\s@:]*:[^/\s@]+(?=@)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_HINTS = (
    *("authorization", "cookie", "passw", "passphrase", "secret", "token", "api", "credential"),
    *("bearer", "basic", "://"),
)


_SHORTEST = 8  # a shorter value may be a word of any text
_known: list[str] = []


def hide_values_of(environ: Mapping[str, str]) -> None:
    """Mask from now on what variables with the names of secrets hold, wherever it turns up."""
    values = {
        value
        for name, value in environ.items()
        if len(value) >= _SHORTEST and (is_secret(name) or name.upper().endswith("_KEY"))
    }
    _known[:] = sorted(values, key=len, reverse=True)  # one may be a part of another


@functools.lru_cache(1024)
def is_secret(name: str) -> bool:
    """Say whether what is called so must not be shown: ``X-Api-Key``, ``db_password``."""
    return _NAME.fullmatch(name) is not None


def masked(text: str) -> str:
    """Return ``text`` without known secrets, and those that its form gives away."""
    for value in _known:
        if value in text:
            text = text.replace(value, MASK)
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):  # a fiftieth of what the expression takes
        return text
    return _IN_TEXT.sub(lambda found: f"{found[found.lastgroup or 0]}{MASK}", text)


def without_secrets(value: Any, depth: int = 4) -> Any:
    """Return ``value`` with the values of secret names masked, in mappings and lists of these."""
    if depth and isinstance(value, Mapping):
        return {
            key: MASK if is_secret(str(key)) else without_secrets(item, depth - 1)
            for key, item in value.items()
        }
    if depth and isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        return [without_secrets(item, depth - 1) for item in value]
    return value
