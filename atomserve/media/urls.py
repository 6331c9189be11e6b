"""The one reading of a URL: what is checked is what is connected to.

Only the canonical form is read, since a form that two parsers read differently hides where it
leads to.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple
from urllib.parse import urljoin

from atomserve.media.addresses import Address

LONGEST = 8192
PORTS = {"http": 80, "https": 443}

_PATH = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
_TAIL = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_.-]{1,253}))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    rf"(?P<target>(?:/{_PATH})?(?:\?{_TAIL})?)"
    rf"(?:#{_TAIL})?",
    re.ASCII,
)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
# Resolvers take a name that ends like this for a number that is written in a short form.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)


class Url(NamedTuple):
    """An http or https URL taken apart; ``address`` is there where the host is one."""

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None = None

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def read_url(text: str) -> Url:
    """Take a URL apart.

    Raises:
        ValueError: it is no http or https URL in its canonical form.
    """
    found = _URL.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        raise ValueError("not a canonical URL")
    host, address = _host(found["name"], found["v6"])
    port = int(found["port"]) if found["port"] else PORTS[found["scheme"]]
    if port > 65_535:
        raise ValueError("not a port")
    target = found["target"]
    return Url(
        found["scheme"], host, port, target if target.startswith("/") else f"/{target}", address
    )


def _host(name: str | None, v6: str | None) -> tuple[str, Address | None]:
    if name is None:
        six = IPv6Address(v6 or "")
        return str(six), six
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return name, IPv4Address(name)
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("not a host's name")
    return name.lower(), None


def follow(url: Url, location: str) -> Url:
    """Return where a redirect from ``url`` leads; raises as `read_url` does."""
    target = read_url(urljoin(str(url), location))
    if url.scheme == "https" and target.scheme == "http":
        raise ValueError("leads from https to http")
    return target
