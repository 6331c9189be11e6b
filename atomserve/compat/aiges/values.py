"""How the loose values of wrappers are read: keys, tags and data."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """Return a key, a tag or a handle as text; some wrappers write bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def size(data: Any) -> int:
    """Return how many bytes ``data`` has; of a view its bytes, not its items."""
    return data.nbytes if isinstance(data, memoryview) else len(data)


def kind(value: Any) -> str:
    """Name what ``value`` is, for people."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
