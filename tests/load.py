"""A small client for many requests: kept connections in threads, every answer checked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0.0

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code, or nothing."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(self.json()["code"])


class Caller:
    """One connection over HTTP/1.1, opened again when the server has closed it with a word."""

    def __init__(self, port: int, *, timeout: float = 15.0) -> None:
        self._port = port
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._rest = b""

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def post(self, path: str, body: bytes, content_type: str, *fields: str) -> Answer:
        """Send one request and return its answer; a connection without one is an error."""
        lines = (
            f"POST {path} HTTP/1.1",
            "Host: test",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            *fields,
        )
        head = "\r\n".join((*lines, "", "")).encode()
        began = time.monotonic()
        sock = self._connection()
        if len(body) <= 16384:
            sock.sendall(head + body)
        else:
            sock.sendall(head)
            sock.sendall(body)
        answer = self._read(sock)
        answer.seconds = time.monotonic() - began
        return answer

    def ask(self, model: str, *fields: str, **inputs: Any) -> Answer:
        """Have ``model`` predict."""
        body = json.dumps(inputs).encode()
        return self.post(f"/v1/models/{model}/predict", body, "application/json", *fields)

    def get(self, path: str) -> Answer:
        began = time.monotonic()
        sock = self._connection()
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        answer = self._read(sock)
        answer.seconds = time.monotonic() - began
        return answer

    def _connection(self) -> socket.socket:
        if self._sock is None:
            self._sock = socket.create_connection(("127.0.0.1", self._port), self._timeout)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._rest = b""
        return self._sock

    def _read(self, sock: socket.socket) -> Answer:
        data = self._rest
        while b"\r\n\r\n" not in data:
            data += self._more(sock)
        raw, _, data = data.partition(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if "content-length" in headers:
            size = int(headers["content-length"])
            pieces, have = [data], len(data)
            while have < size:
                pieces.append(self._more(sock))
                have += len(pieces[-1])
            data = b"".join(pieces)
        else:
            size, data = self._read_chunks(sock, data)
        body, self._rest = data[:size], data[size:]
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(first.split()[1]), headers, body)

    def _read_chunks(self, sock: socket.socket, data: bytes) -> tuple[int, bytes]:
        body = b""
        while True:
            while b"\r\n" not in data:
                data += self._more(sock)
            head, _, data = data.partition(b"\r\n")
            size = int(head, 16)
            while len(data) < size + 2:
                data += self._more(sock)
            body, data = body + data[:size], data[size + 2 :]
            if not size:
                return len(body), body + data

    def _more(self, sock: socket.socket) -> bytes:
        data = sock.recv(262144)
        if not data:
            self.close()
            raise ConnectionError("the server closed without an answer")
        return data


@dataclass
class Tally:
    """What became of many requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """By status and code, or ``lost``, ``crossed``, ``hopeless`` (503 without Retry-After)."""
    lost: list[str] = field(default_factory=list)
    slowest: float = 0.0
    done: int = 0

    @property
    def good(self) -> int:
        return self.outcomes["200"]


Request = Callable[[Caller, int], tuple[Answer, bool]]
"""Makes one request, by its number; returns the answer and whether it is the right one."""


def echo(model: str, **inputs: Any) -> Request:
    """Return requests to `faultplugin.Fault`, each with a token of its own."""

    def ask(caller: Caller, number: int) -> tuple[Answer, bool]:
        token = f"token-{number}"
        answer = caller.ask(model, **inputs, token=token)
        return answer, answer.status != 200 or answer.json() == token

    return ask


def burst(
    port: int,
    count: int,
    request: Request,
    *,
    clients: int = 8,
    at: Sequence[tuple[int, Callable[[], None]]] = (),
    patience: float = 15.0,
) -> Tally:
    """Make ``count`` requests on ``clients`` connections.

    Each of ``at`` is called, in the thread that comes by, when so many have been answered.
    """
    tally = Tally()
    turn = threading.Lock()
    numbers = iter(range(count))
    waiting = sorted(at, key=lambda due: due[0])
    failures: list[BaseException] = []

    def note(answer: Answer | None, right: bool, problem: str) -> Callable[[], None] | None:
        with turn:
            tally.done += 1
            if answer is None:
                tally.outcomes["lost"] += 1
                tally.lost.append(problem)
            else:
                tally.outcomes[_outcome(answer, right)] += 1
                tally.slowest = max(tally.slowest, answer.seconds)
            if waiting and tally.done >= waiting[0][0]:
                return waiting.pop(0)[1]
        return None

    def work() -> None:
        caller = Caller(port, timeout=patience)
        try:
            while True:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    return
                answer, right, problem = None, True, ""
                try:
                    answer, right = request(caller, number)
                except OSError as exc:
                    problem = f"{number}: {exc!r}"
                    caller.close()
                due = note(answer, right, problem)
                if due is not None:
                    due()
        except BaseException as exc:  # noqa: BLE001 - raised by whoever reads `failures`
            failures.append(exc)
        finally:
            caller.close()

    run_all([work] * clients)
    if failures:
        raise failures[0]
    return tally


def run_all(works: Iterable[Callable[[], None]]) -> None:
    """Run each in a thread of its own, and return when all have."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _outcome(answer: Answer, right: bool) -> str:
    if not right:
        return "crossed"
    if answer.status == 503 and "retry-after" not in answer.headers:
        return "hopeless"
    return f"{answer.status} {answer.code}".strip()
