"""What must not stand in a log: values that a name, a form, or the environment shows as secret."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_WORDS = (
    r"authorization|cookie|passw(?:or)?ds?|passphrase|secrets?|credentials?"
    r"|(?:api|app|auth|access|private|secret)[_-]?keys?"
)
_NAME = re.compile(rf"(?:{_WORDS}|token)\Z", re.IGNORECASE)
_IN_TEXT = re.compile(
    rf"""
    # All begin with one of these, which is seen sooner than what.
    (?=[abcpst:])(?:
    # A header's whole value.
    (?P<header>\b(?:authorization|(?:set-)?cookie)(?:["']\s*,|["']?\s*[:=])\s*(?:b?["'])?)[^"'\s][^"'\r\n]*
    # A name and its value, as people, Python, JSON and URLs write them. Of tokens, a short number
    # is a count.
    |(?P<quoted>(?:{_WORDS}|token)\\*["']?\s*[:=]\s*b?\\*(?P<quote>["']))(?:\\.|(?!(?P=quote))[^\\\r\n])+
    |(?P<name>(?:(?:{_WORDS})["']?\s*[:=]|token["']?\s*[:=](?!\s*\d{{1,6}}(?:[\s"',;&}}\])]|\.?\Z)))\s*["']?)[^\s"',;&}}\]]+
    |(?P<scheme>\bbearer\s+|\bbasic\s+(?-i:(?=\S*[A-Z\d=])))[\w.~+/=-]{{8,}}
    # A URL's user: a name and a password, or a token by itself.
    |(?P<user>://)(?:[^/\s@:]*:[^/\s@]+|[^/\s@:]{{16,}})(?=@)
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_HINTS = (
    *("authorization", "cookie", "passw", "passphrase", "secret", "token", "key", "credential"),
    *("bearer", "basic"),
)


_SHORTEST = 8  # a shorter value may be a word of any text
_known: list[str] = []


def hide_values_of(environ: Mapping[str, str]) -> None:
    """Mask from now on what variables with the names of secrets hold, wherever it turns up."""
    held = [
        value for name, value in environ.items() if is_secret(name) or name.upper().endswith("_KEY")
    ]
    # Of a key in PEM each line, since its line breaks may have been escaped before.
    parts = {part for value in held for part in (value, *value.splitlines())}
    values = (part for part in parts if len(part) >= _SHORTEST)
    _known[:] = sorted(values, key=len, reverse=True)  # one may be a part of another


@functools.lru_cache(1024)
def is_secret(name: str) -> bool:
    """Say whether what is called so must not be shown: ``X-Api-Key``, ``db_password``."""
    return _NAME.search(name) is not None


def masked(text: str) -> str:
    """Return ``text`` without known secrets, and those that its form gives away."""
    for value in _known:
        if value in text:
            text = text.replace(value, MASK)
    lower = text.lower()
    # A thirtieth of what the expression takes.
    if not any(hint in lower for hint in _HINTS) and not ("://" in text and "@" in text):
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
