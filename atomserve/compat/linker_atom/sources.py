"""What the services of this process may open: upstream's functions have no place for it."""

from __future__ import annotations

from atomserve.media.sources import Sources

_in_use = [Sources()]


def use(sources: Sources) -> None:
    """Let `load_image` and `MmapManager` open what ``sources`` allows, from now on."""
    _in_use[0] = sources


def in_use() -> Sources:
    """Return what may be opened; nothing beside base64 before `use` was called."""
    return _in_use[0]
