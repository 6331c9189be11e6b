"""Say which web pages may open a WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit


def same_origin(headers: Mapping[str, str], allowed: tuple[str, ...]) -> bool:
    """Say whether a browser's page may open this WebSocket; programs send no Origin.

    Browsers apply no CORS to WebSockets, so that the server has to look.
    """
    origin = headers.get("origin")
    if origin is None or origin in allowed or "*" in allowed:
        return True
    return urlsplit(origin).netloc == headers.get("host", headers.get(":authority", ""))
