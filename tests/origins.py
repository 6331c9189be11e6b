"""A web server for fetching from, which answers byte by byte as a test says."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

Act = Callable[[socket.socket], None]


def whole(body: bytes, *headers: str, status: str = "200 OK") -> Act:
    """Answer in one piece."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    return lambda sock: sock.sendall(answer)


def redirect(location: str, status: str = "302 Found") -> Act:
    return whole(b"", f"Location: {location}", status=status)


class Origin:
    """Listens on ``address``; ``routes`` say what each path answers, ``heads`` what was asked."""

    def __init__(self, address: str, tls: ssl.SSLContext | None) -> None:
        self.routes: dict[str, Act] = {}
        self.heads: list[str] = []
        self.closing = Event()
        self._tls = tls
        self._listener = socket.create_server((address, 0))
        self.address, self.port = self._listener.getsockname()[:2]
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, path: str = "/", host: str = "") -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host or self.address}:{self.port}{path}"

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(10)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := sock.recv(4096)):
                    return
                head += piece
            self.heads.append(head.decode("latin-1"))
            self.routes[head.split()[1].decode().partition("?")[0]](sock)
            sock.close()

    def close(self) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(15)


@contextmanager
def origin(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Origin]:
    server = Origin(address, tls)
    try:
        yield server
    finally:
        server.close()


class Listeners:
    """Sockets that hear every connection to their ports, on all addresses of this machine."""

    def __init__(self) -> None:
        self.v4 = socket.create_server(("0.0.0.0", 0))
        self.port = self.v4.getsockname()[1]
        self._sockets = [self.v4]
        with contextlib.suppress(OSError):  # a machine without IPv6
            self._sockets.append(socket.create_server(("::", self.port), family=socket.AF_INET6))
        for sock in self._sockets:
            sock.setblocking(False)

    def connections(self) -> int:
        """Count the connections made so far, and forget them."""
        count = 0
        for sock in self._sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.accept()[0].close()
                    count += 1
        return count

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def answers(*addresses: str) -> list[tuple[Any, ...]]:
    """Return what `getaddrinfo` answers for these addresses; the port is put in by `Names`."""
    return [(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in addresses]


class Names:
    """A resolver: the n-th question gets the n-th of ``turns``, and the last one for ever."""

    def __init__(self, *turns: list[str]) -> None:
        self.turns = list(turns)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        turn = self.turns[min(len(self.asked), len(self.turns) - 1)]
        self.asked.append(host)
        return [
            (
                family,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port, *((0, 0) if ":" in address else ())),
            )
            for family, address in answers(*turn)
        ]
