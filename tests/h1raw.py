"""A raw HTTP/1.1 client: the bytes that a test writes are the bytes that are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

Headers = list[tuple[str, str]]


@dataclass
class Answer:
    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class H1:
    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self._read = BufferedByteReceiveStream(stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def head(self) -> Answer:
        """Read a status line and header fields, interim ones too."""
        head = (await self._read.receive_until(b"\r\n\r\n", 65536)).decode("latin-1")
        first, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return Answer(int(first.split()[1]), [(n.lower(), v.strip()) for n, _, v in pairs])

    async def answer(self) -> Answer:
        """Read a whole answer, past interim ones."""
        answer = await self.head()
        while answer.status < 200:
            answer = await self.head()
        length = answer.header("content-length")
        if length is not None:
            answer.body = await self._read.receive_exactly(int(length)) if int(length) else b""
        elif answer.header("transfer-encoding") == "chunked":
            while piece := await self.chunk():
                answer.body += piece
        return answer

    async def chunk(self) -> bytes:
        size = int(await self._read.receive_until(b"\r\n", 100), 16)
        data = await self._read.receive_exactly(size) if size else b""
        await self._read.receive_exactly(2)
        return data

    async def closed(self) -> bool:
        """Wait until the server closes; anything that it sends before is a failure."""
        try:
            extra = await self._read.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return True
        raise AssertionError(f"the server sent {extra[:200]!r}")

    async def abort(self) -> None:
        """Leave without a word: RST rather than FIN."""
        import socket
        import struct

        raw = self.stream.extra(anyio.abc.SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[H1]:
    stream = await anyio.connect_tcp("127.0.0.1", port)
    async with stream:
        yield H1(stream)


def post(path: str = "/", *fields: str, body: bytes = b"", chunked: bool = False) -> bytes:
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}"
    lines = [f"POST {path} HTTP/1.1", "host: test", framing, *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(path: str = "/", *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: test", *fields, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
