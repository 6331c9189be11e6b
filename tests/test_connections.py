"""The buffer under h11: whatever the pieces, it reads what h11 with its own would read."""

from typing import Any

import h11
from hypothesis import given
from hypothesis import strategies as st

from atomserve.server.connections import Received

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
