"""Which addresses a client's URL may lead to: public ones, by a table of our own.

Python's `ipaddress` calls some addresses public that lead back into a private network, and not the
same ones in every version.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

PRIVATE_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # behind a carrier's NAT; clouds keep metadata services there
            "127.0.0.0/8",
            "168.63.129.16/32",  # a public address that a cloud keeps for its own host
            "169.254.0.0/16",  # link-local, metadata services
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments, metadata services
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # relays to IPv6
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
PUBLIC_V6 = IPv6Network("2000::/3")
"""All that is assigned; loopback, private, mapped, translated and multicast lie outside of it."""
PRIVATE_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments; Teredo, which holds IPv4 addresses
            "2001:db8::/32",
            "2002::/16",  # 6to4, which holds IPv4 addresses
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)


class Reach:
    """Public addresses, and the networks that the operator allows beside them."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(ip_network(each) for each in allowed)

    def includes(self, address: Address) -> bool:
        """Say whether a connection to ``address`` may be made."""
        return any(address in network for network in self._allowed) or is_public(address)


def is_public(address: Address) -> bool:
    """Say whether ``address`` is anybody's to reach, and nobody's own network."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in PRIVATE_V4)
    return address in PUBLIC_V6 and not any(address in network for network in PRIVATE_V6)
