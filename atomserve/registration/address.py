"""Where others reach this instance, as far as its own settings tell."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from atomserve.settings import Settings


class Address(NamedTuple):
    """A URL, and a line on what is doubtful about it."""

    url: str
    doubt: str = ""


def advertised(settings: Settings, places: Sequence[str]) -> Address:
    """Return what to announce of an instance that listens at ``places`` (``host:port``).

    One that listens on every address is reached by its machine's name; nobody else gets to a
    loopback address or a unix socket.
    """
    if settings.registration.advertise:
        return Address(settings.registration.advertise.rstrip("/"))
    scheme = "https" if settings.certfile else "http"
    place = places[0] if places else "unix:"
    if place.startswith("unix:"):
        return Address("", "a unix socket has no URL")
    host, _, port = place.rpartition(":")
    with suppress(ValueError):
        address = ipaddress.ip_address(host.strip("[]"))
        if address.is_unspecified:
            return Address(f"{scheme}://{socket.gethostname()}:{port}")
        if address.is_loopback:
            return Address(f"{scheme}://{place}", "only this machine reaches its own loopback")
    return Address(f"{scheme}://{place}")
