"""A control plane: the real HTTP of linker_atom's Serving and of a Consul agent, with its faults.

`ControlPlane.faults` says by a call's name (``register``, ``health``, ``unRegister``, or Consul's
``register``, ``pass``, ``deregister``) what becomes of it instead of an answer.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Callable[["Handler"], None]


class Heard:
    """One call as it came."""

    def __init__(
        self, name: str, body: Any, headers: dict[str, str], query: dict[str, Any]
    ) -> None:
        self.name = name
        self.body = body
        self.headers = headers
        self.query = query
        self.at = time.monotonic()

    def __repr__(self) -> str:
        return f"<{self.name} {self.body}>"


class Handler(BaseHTTPRequestHandler):
    """Reads one request, notes it, and answers or misbehaves."""

    protocol_version = "HTTP/1.1"
    plane: ControlPlane

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(parts.path)
        name = path.split("/v1/agent/")[-1].removeprefix("/atom/")
        for call in ("register", "deregister", "pass"):
            if name.startswith((f"service/{call}", f"check/{call}")):
                name = call
        headers = {key.lower(): value for key, value in self.headers.items()}
        heard = Heard(name, json.loads(data) if data else None, headers, parse_qs(parts.query))
        self.plane.note(heard)
        if (fault := self.plane.faults.get(name)) is not None:
            fault(self)
        elif path.startswith("/v1/agent/"):
            self.as_agent(name, path.rpartition("/")[2], heard)
        else:
            self.as_serving(name, heard)

    do_PUT = do_GET = do_POST

    def as_serving(self, name: str, heard: Heard) -> None:
        instances, instance = self.plane.instances, heard.body["atomInstanceName"]
        answer = {"code": "0"}
        if name == "register":
            instances[instance] = heard.body
        elif name == "unRegister":
            instances.pop(instance, None)
        elif instance not in instances:
            answer["data"] = "register"
        self.say(json.dumps(answer).encode())

    def as_agent(self, name: str, rest: str, heard: Heard) -> None:
        services = self.plane.services
        if name == "register":
            services[heard.body["ID"]] = heard.body
        elif rest.removeprefix("service:") not in services:
            self.say(b"Unknown check ID", status=404)
            return
        elif name == "deregister":
            del services[rest]
        self.say(b"")

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class ControlPlane:
    """One that listens on a port of its own, which it keeps when it is down for a while."""

    def __init__(self, context: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> None:
        self._host = host
        self.heard: list[Heard] = []
        self.instances: dict[str, Any] = {}
        self.services: dict[str, Any] = {}
        self.faults: dict[str, Fault] = {}
        self.released = threading.Event()
        self.sent = 0
        """Bytes of the largest answer that went out."""
        self._context = context
        self._news = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self._context else ''}://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen, on the port that it had."""
        handler = type("Bound", (Handler,), {"plane": self})
        self._server = server = Server((self._host, self.port), handler)
        server.context = self._context
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def note(self, heard: Heard) -> None:
        with self._news:
            self.heard.append(heard)
            self._news.notify_all()

    def calls(self, name: str) -> list[Heard]:
        return [heard for heard in self.heard if heard.name == name]

    def wait_for(self, name: str, *, count: int = 1, within: float = 15.0) -> Heard:
        """Return the ``count``th call of this name, when it has come."""
        with self._news:
            found = self._news.wait_for(lambda: len(self.calls(name)) >= count, within)
        assert found, f"no {name} ({count}) within {within} s: {self.heard}"
        return self.calls(name)[count - 1]


class Server(ThreadingHTTPServer):
    """Does its TLS handshakes in the threads of the connections."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        with suppress(OSError):  # the other end is gone, or does not trust us
            if self.context is not None:
                request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
            if self.context is not None:
                request.close()

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def control_plane(context: ssl.SSLContext | None = None) -> Iterator[ControlPlane]:
    plane = ControlPlane(context)
    plane.up()
    try:
        yield plane
    finally:
        plane.released.set()
        plane.down()


# Faults.


def hang(handler: Handler) -> None:
    """Say nothing until the test is over."""
    handler.plane.released.wait(60)
    handler.close_connection = True


def slow(seconds: float) -> Fault:
    def fault(handler: Handler) -> None:
        handler.plane.released.wait(seconds)
        handler.say(b'{"code": "0"}')

    return fault


def says(body: bytes, status: int = 200, **headers: str) -> Fault:
    return lambda handler: handler.say(body, status, **headers)


def redirect(handler: Handler) -> None:
    place = f"{handler.plane.url}/atom/elsewhere"
    handler.say(b'{"code": "0"}', 307, Location=place)


def cut(handler: Handler) -> None:
    """Close without a word."""
    handler.close_connection = True


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"\x16\x03\x01 what is this\r\n\r\n")
    handler.close_connection = True


def huge(handler: Handler) -> None:
    """Say what may be fine, and a gigabyte more."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(1024**3))
    handler.end_headers()
    handler.close_connection = True
    block = b'{"code": "0"}'.ljust(64 * 1024)
    with suppress(OSError):
        for sent in range(0, 1024**3, len(block)):
            handler.wfile.write(block)
            handler.plane.sent = max(handler.plane.sent, sent)


def bomb(handler: Handler) -> None:
    """Say it compressed, which nobody has asked for."""
    import gzip

    body = gzip.compress(b'{"code": "0"}'.ljust(50 * 1024 * 1024))
    handler.say(body, **{"Content-Encoding": "gzip"})


def drip(handler: Handler) -> None:
    """Say a byte each tenth of a second."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.close_connection = True
    with suppress(OSError):
        while not handler.plane.released.wait(0.1):
            handler.wfile.write(b" ")


GARBAGE: dict[str, Fault] = {
    "status 500": says(b'{"code": "0"}', 500),
    "html": says(b"<html><body>Welcome to nginx!</body></html>"),
    "nothing": says(b""),
    "no object": says(b'["0"]'),
    "int 0": says(b'{"code": 0}'),
    "code 1": says(b'{"code": "1"}'),
    "no code": says(b'{"data": "register"}'),
    "deep": says(b"[" * 100_000),
    "bytes": says(bytes(range(256)) * 16),
    "redirect": redirect,
    "closes": cut,
    "no http": no_http,
    "1 GB": huge,
    "gzip": bomb,
}
