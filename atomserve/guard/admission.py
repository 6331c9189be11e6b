"""What a request's head alone decides: whether it is sane, its length, its id, its true sender."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import os
import re
from collections.abc import Sequence

from starlette.types import Scope

from atomserve.errors import BadRequest, HeadersTooLarge, MethodNotAllowed
from atomserve.settings import Limits

UNKNOWN = -1
"""A body length that only the end of the body will tell."""

_ONCE = (b"host", b"content-length", b"transfer-encoding")
_TUNNELS = frozenset({"CONNECT", "TRACE"})
_LENGTH_DIGITS = 18
_SANE_ID = re.compile(rb"[!-~]{1,128}").fullmatch

Fields = dict[bytes, bytes]


def check_fields(headers: Sequence[tuple[bytes, bytes]], fields: Fields, limits: Limits) -> None:
    """Judge ``headers``, of which ``fields`` is the mapping by name.

    Raises HeadersTooLarge, and BadRequest where a field that frames the request is repeated.
    """
    if len(headers) > limits.headers:
        raise HeadersTooLarge(f"More than {limits.headers} header fields.")
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
    if size > limits.header_bytes:
        raise HeadersTooLarge(f"More than {limits.header_bytes} bytes of header fields.")
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        for once in _ONCE:
            if names.count(once) > 1:
                raise BadRequest(f"Several {once.decode()} fields.")


def body_length(fields: Fields, version: str) -> int:
    """Return how long the body will be, or UNKNOWN.

    Raises BadRequest for lengths that two parsers could read in two ways: that is how requests
    are smuggled past a proxy.
    """
    declared = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if declared is not None:
            raise BadRequest("Both content-length and transfer-encoding.")
        if version[0] != "1" or coding.strip().lower() != b"chunked":
            raise BadRequest("The only transfer-encoding is chunked, on HTTP/1.1.")
        return UNKNOWN
    if declared is not None:
        if not declared.isdigit() or len(declared) > _LENGTH_DIGITS:
            raise BadRequest("The content-length is not a number.")
        return int(declared)
    return 0 if version[0] == "1" else UNKNOWN


def check_method(method: str) -> None:
    """Raise MethodNotAllowed for the methods that turn a server into a tunnel or a mirror."""
    if method in _TUNNELS:
        raise MethodNotAllowed(f"{method} is not served.", allow=("GET", "HEAD", "OPTIONS", "POST"))


class RequestIds:
    """Gives each request an id: the client's own if sane, else a number under a random prefix."""

    __slots__ = ("_fresh",)

    def __init__(self) -> None:
        self._fresh = map(f"{os.urandom(6).hex()}-%x".__mod__, itertools.count(1))

    def of(self, fields: Fields) -> str:
        """Return the id of the request with these header fields."""
        own = fields.get(b"x-request-id")
        if own is not None and _SANE_ID(own):
            return own.decode("ascii")
        return next(self._fresh)


class Proxies:
    """The proxies whose word on the client's address and scheme is believed."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in trusted]
        self._trusts = functools.lru_cache(maxsize=1024)(self._is_trusted)

    def _is_trusted(self, address: str) -> bool:
        parsed = ipaddress.ip_address(address)
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(mapped in network for network in self._networks)

    def rewrite(self, scope: Scope) -> None:
        """Put the client that trusted proxies speak for into ``scope``, and its scheme."""
        peer = scope.get("client")
        if not peer or not self._speaks_for_others(peer[0]):
            return
        said = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        hops = ",".join(value for name, value in said if name == b"x-forwarded-for")
        client = self._rightmost_untrusted(hops)
        if client:
            scope["client"] = (client, 0)
        schemes = [value for name, value in said if name == b"x-forwarded-proto"]
        scheme = schemes[-1].rpartition(",")[2].strip().lower() if schemes else ""
        if scheme in {"http", "https"}:
            secure = scheme == "https"
            web = scope["type"] == "websocket"
            scope["scheme"] = ("ws" if web else "http") + ("s" if secure else "")

    def _speaks_for_others(self, address: str) -> bool:
        try:
            return self._trusts(address)
        except ValueError:  # not an address: a unix socket's peer
            return False

    def _rightmost_untrusted(self, hops: str) -> str:
        """Return the last address that a trusted proxy saw and that is no trusted proxy itself."""
        found = ""
        for hop in reversed(hops.split(",")):
            address = _without_port(hop.strip())
            try:
                trusted = self._trusts(address)
            except ValueError:
                break
            found = address
            if not trusted:
                break
        return found


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
