"""Names to addresses, once for each connection, and every one of them checked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from ipaddress import IPv4Address, ip_address
from typing import Any, NamedTuple

from atomserve.errors import SourceRefused, SourceTimeout
from atomserve.media.addresses import Reach
from atomserve.media.deadlines import left
from atomserve.media.urls import Url

THREADS = 4
"""Names that are looked up at once: the system's resolver knows no deadline."""

REFUSED = (
    "this URL may not be opened: expected the canonical http or https URL of a host that this "
    "server may reach"
)
"""Said of whatever is wrong with a URL or its host, so that it tells nothing of a network."""

Lookup = Callable[..., list[tuple[Any, ...]]]


class Place(NamedTuple):
    """Where to connect to: an address that was checked, as `socket.socket.connect` takes it."""

    family: int
    address: tuple[Any, ...]


class Resolver:
    """Finds the places of hosts within ``reach``; ``lookup`` is called like `getaddrinfo`."""

    def __init__(self, reach: Reach, lookup: Lookup = socket.getaddrinfo) -> None:
        self._reach = reach
        self._lookup = lookup

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS, "atomserve-resolver")

    def places(self, url: Url, until: float) -> list[Place]:
        """Return the places of the host of ``url``, all of which may be reached.

        Raises:
            SourceRefused: it has none, or one that may not be reached.
            SourceTimeout: the name is not resolved in time.
        """
        found = [_literal(url)] if url.address is not None else self._resolved(url, until)
        if not found or not all(map(self._may_reach, found)):
            raise SourceRefused(REFUSED)
        return found

    def _resolved(self, url: Url, until: float) -> list[Place]:
        answer = self._threads.submit(
            self._lookup, url.host, url.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        try:
            found = answer.result(left(until))
        except TimeoutError as exc:
            answer.cancel()
            raise SourceTimeout() from exc
        except (OSError, ValueError) as exc:
            raise SourceRefused(REFUSED) from exc
        return list(dict.fromkeys(Place(family, address) for family, *_, address in found))

    def _may_reach(self, place: Place) -> bool:
        try:
            return self._reach.includes(ip_address(place.address[0]))
        except ValueError:
            return False


def _literal(url: Url) -> Place:
    if isinstance(url.address, IPv4Address):
        return Place(socket.AF_INET, (url.host, url.port))
    return Place(socket.AF_INET6, (url.host, url.port, 0, 0))
