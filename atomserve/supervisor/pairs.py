"""The connections between API processes and workers, which the supervisor only hands out."""

from __future__ import annotations

import socket

from atomserve import control
from atomserve.supervisor.children import Child


def link(order: control.Link, *ends: Child) -> None:
    """Give both ``ends`` their side of a new connection.

    Raises:
        OSError: the system has no sockets left.
    """
    stream = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        _close(stream)
        raise
    try:
        for end, *sides in zip(ends, stream, packets, strict=True):
            first, second = sides
            end.post(order, (first.fileno(), second.fileno()))
    finally:
        _close(stream + packets)


def _close(sockets: tuple[socket.socket, ...]) -> None:
    for sock in sockets:
        sock.close()
