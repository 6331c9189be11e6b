"""A request's headers, decoded only when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from starlette.types import Scope


class RawHeaders(Mapping[str, str]):
    """Header names in lower case to their values; of a repeated header, the first."""

    __slots__ = ("_decoded", "_raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._decoded: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            self._decoded = {}
            for name, value in self._raw:
                self._decoded.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        return self._decoded

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def same_origin(headers: Mapping[str, str], scope: Scope, allowed: tuple[str, ...]) -> bool:
    """Say whether a browser's page may open this WebSocket; programs send no Origin.

    Browsers apply no CORS to WebSockets, so that the server has to look.
    """
    origin = headers.get("origin")
    if origin is None or origin in allowed or "*" in allowed:
        return True
    host = headers.get("host", headers.get(":authority", ""))
    return urlsplit(origin).netloc == host
