"""URLs of clients, fetched within bounds of bytes, time and redirects.

Sockets and h11 instead of an HTTP client: a client resolves names by itself, and again for each
connection, reads proxies from the environment, and bounds the silence between two bytes, not the
whole.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property

import h11

from atomserve.errors import SourceFailed, SourceRefused, SourceTimeout, TooLarge
from atomserve.media.addresses import Reach
from atomserve.media.deadlines import left
from atomserve.media.resolving import REFUSED, Lookup, Place, Resolver
from atomserve.media.urls import Url, follow, read_url
from atomserve.settings import MediaSettings

PIECE = 64 * 1024
MAX_HEAD = 32 * 1024
MAX_INTERIM = 8
"""Answers such as 103 before the one that counts."""
MAX_PLACES = 4
"""Addresses of one host that are tried."""
REDIRECTS = (301, 302, 303, 307, 308)


class Fetcher:
    """Fetches URLs; any thread may ask."""

    def __init__(self, settings: MediaSettings, lookup: Lookup = socket.getaddrinfo) -> None:
        self._settings = settings
        self._resolver = Resolver(Reach(settings.allow_networks), lookup)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._settings.ca_file is not None:
            context.load_verify_locations(self._settings.ca_file)
        return context

    def fetch(self, text: str, until: float) -> memoryview:
        """Return what the URL ``text`` leads to.

        Raises:
            SourceRefused: it, or a redirect of it, may not be opened.
            SourceFailed: there is no such answer as is hoped for.
            SourceTimeout: it did not arrive in time.
            TooLarge: it is over the limit.
        """
        try:
            url = read_url(text)
            for _ in range(self._settings.max_redirects + 1):
                found = self._get(url, until)
                if isinstance(found, memoryview):
                    return found
                url = follow(url, found)
        except ValueError as exc:
            raise SourceRefused(REFUSED) from exc
        raise SourceFailed(f"the URL redirects more than {self._settings.max_redirects} times")

    def _get(self, url: Url, until: float) -> memoryview | str:
        """Return the body that ``url`` has, or the location that it redirects to."""
        places = self._resolver.places(url, until)
        with _told(), closing(self._connected(places, url, until)) as sock:
            exchange = _Exchange(sock, until)
            exchange.ask(url)
            head = exchange.head()
            headers = dict(head.headers)
            if head.status_code in REDIRECTS:
                return headers.get(b"location", b"").decode("latin-1")
            if head.status_code != 200:
                raise SourceFailed(f"the URL's server answered with status {head.status_code}")
            if headers.get(b"content-encoding", b"identity").lower() != b"identity":
                raise SourceFailed("the URL's server compresses its answer, unasked")
            return exchange.body(
                int(headers.get(b"content-length", b"0")), self._settings.max_bytes
            )

    def _connected(self, places: list[Place], url: Url, until: float) -> socket.socket:
        failure: OSError | None = None
        for place in places[:MAX_PLACES]:
            sock = socket.socket(place.family, socket.SOCK_STREAM)
            try:
                sock.settimeout(min(left(until), self._settings.connect_timeout))
                sock.connect(place.address)
                if url.scheme == "http":
                    return sock
                sock.settimeout(left(until))
                return self._tls.wrap_socket(sock, server_hostname=url.host)
            except OSError as exc:
                sock.close()
                failure = exc
            except BaseException:
                sock.close()
                raise
        assert failure is not None
        raise failure


class _Exchange:
    """One GET over a connection that is made for it."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    def ask(self, url: Url) -> None:
        headers = [
            ("Host", url.authority),
            ("User-Agent", "atomserve"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        request = h11.Request(method="GET", target=url.target, headers=headers)
        asked = (self._http.send(request), self._http.send(h11.EndOfMessage()))
        self._sock.settimeout(left(self._until))
        self._sock.sendall(b"".join(part or b"" for part in asked))

    def head(self) -> h11.Response:
        for _ in range(MAX_INTERIM):
            event = self._next()
            if isinstance(event, h11.Response):
                return event
        raise SourceFailed("the URL's server does not come to its answer")

    def body(self, declared: int, most: int) -> memoryview:
        if declared > most:
            raise _too_large(most)
        body = bytearray()
        while isinstance(event := self._next(), h11.Data):
            if len(body) + len(event.data) > most:
                raise _too_large(most)
            body += event.data
        return memoryview(body).toreadonly()

    def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._sock.settimeout(left(self._until))
            self._http.receive_data(self._sock.recv(PIECE))
        return event


@contextmanager
def _told() -> Iterator[None]:
    """Say what went wrong on the way; the cause is for the log."""
    try:
        yield
    except TimeoutError as exc:
        raise SourceTimeout() from exc
    except (OSError, h11.RemoteProtocolError) as exc:
        raise SourceFailed() from exc


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"what the URL leads to is too large; expected at most {most} bytes")
