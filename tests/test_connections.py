"""Connections: whatever the pieces, h11 reads the same; who is refused is told so and left."""

from collections.abc import Iterator
from typing import Any

import h11
import live
import pytest
from h1raw import connect, get, post
from hypothesis import given
from hypothesis import strategies as st

from atomserve.server.connections import Received

pytestmark = pytest.mark.anyio

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\n"
LENGTH = HEAD + b"content-length: 10\r\n\r\n0123456789"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
EMPTY = HEAD + b"content-length: 0\r\n\r\n"
requests = st.lists(st.sampled_from([LENGTH, CHUNKED, EMPTY]), min_size=1, max_size=3)


def heard(pieces: list[bytes], buffer: Any = None) -> list[tuple[str, bytes]]:
    """Return the events of a connection that answers each request; data is joined."""
    connection, found = h11.Connection(h11.SERVER), [("", b"")]
    if buffer is not None:
        connection._receive_buffer = buffer
    for piece in pieces:
        connection.receive_data(piece)
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if event is h11.PAUSED:
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            elif isinstance(event, h11.Data) and found[-1][0] == "Data":
                found[-1] = ("Data", found[-1][1] + bytes(event.data))
            else:
                data = bytes(event.data) if isinstance(event, h11.Data) else b""
                found.append((type(event).__name__, data))
    return found


@given(requests, st.lists(st.integers(1, 60), max_size=20))
def test_pieces_do_not_change_what_is_read(sent: list[bytes], sizes: list[int]) -> None:
    whole, pieces = b"".join(sent), list[bytes]()
    for size in [*sizes, len(whole)]:
        pieces.append(whole[:size])
        whole = whole[size:]
    pieces = [piece for piece in pieces if piece]
    assert heard(pieces, Received()) == heard(pieces)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("connections")
    toml = 'limits.body = "1KiB"\n'
    with live.live(folder, "--plugins", "echo,echo_session", toml=toml) as running:
        yield running.port


def upgrade(version: str = "13", *fields: str) -> bytes:
    return get(
        "/v1/models/echo_session/session",
        "connection: upgrade",
        "upgrade: websocket",
        f"sec-websocket-version: {version}",
        *fields,
    )


@pytest.mark.parametrize(
    "handshake", [upgrade("12", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="), upgrade()]
)
async def test_who_cannot_shake_hands_is_refused_and_left(port: int, handshake: bytes) -> None:
    async with connect(port) as client:
        await client.send(handshake)
        assert (await client.answer()).status == 400
        assert await client.closed()


async def test_a_body_that_would_be_refused_is_not_asked_for(port: int) -> None:
    async with connect(port) as client:
        head = post("/v1/models/echo/predict", "expect: 100-continue", "content-type: text/plain")
        await client.send(head.replace(b"length: 0", b"length: 5000"))
        assert (await client.head()).status == 413
    async with connect(port) as client:
        await client.send(head.replace(b"length: 0", b"length: 5"))
        assert (await client.head()).status == 415


async def test_a_body_that_is_wanted_is_asked_for(port: int) -> None:
    body = b'{"text": "a", "number": 1}'
    head = post(
        "/v1/models/echo/predict", "expect: 100-continue", "content-type: application/json"
    ).replace(b"length: 0", b"length: %d" % len(body))
    async with connect(port) as client:
        for _ in range(2):
            await client.send(head)
            assert (await client.head()).status == 100
            await client.send(body)
            assert (await client.answer()).status == 200


async def test_an_upgrade_to_http2_is_ignored(port: int) -> None:
    async with connect(port) as client:
        fields = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk")
        await client.send(get("/livez", *fields))
        assert (await client.answer()).status == 200
        await client.send(get("/livez"))
        assert (await client.answer()).status == 200
