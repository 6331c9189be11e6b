"""How to break off an answer on Hypercorn, which itself leaves such a stream or connection open.

Granian needs no help: it breaks off what an application leaves unfinished when that returns.
"""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from starlette.types import Send


async def reset(send: Send) -> None:
    """Break off the answer that ``send``, as the server gave it, belongs to.

    On HTTP/2 the stream is reset and the connection's others go on; on HTTP/1.1 the connection is
    cut, with what is still to be written: a client that does not read would hold it for ever.
    """
    owner = getattr(send, "__self__", None)
    if not isinstance(owner, HTTPStream | WSStream) or owner.closed:
        return
    stream: Any = owner
    protocol = stream.send.__self__
    if isinstance(protocol, H2Protocol):
        try:
            protocol.connection.reset_stream(stream.stream_id, ErrorCodes.INTERNAL_ERROR)
        except ProtocolError:  # it is closed already
            return
        await protocol._close_stream(stream.stream_id)
        await protocol._window_updated(stream.stream_id)
        await protocol._flush()
    else:
        protocol.send.__self__.writer.transport.abort()
