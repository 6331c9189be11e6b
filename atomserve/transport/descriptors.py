"""File descriptors between processes, over a socket that nothing else reads.

A socket of its own (SOCK_SEQPACKET): descriptors that arrive while an asyncio protocol owns the
socket are silently dropped.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

MAX_PAYLOAD = 65536
"""Most bytes of one message."""


def send_descriptors(sock: socket.socket, payload: bytes, fds: Sequence[int]) -> None:
    """Send one message; the other end gets descriptors of its own, these stay the caller's.

    Raises:
        ValueError: an empty payload cannot be told from the end.
        OSError: the other end is gone, or takes no more now (BlockingIOError).
    """
    if not 0 < len(payload) <= MAX_PAYLOAD:
        raise ValueError(f"a message has 1 to {MAX_PAYLOAD} bytes, not {len(payload)}")
    sock.sendmsg([payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def receive_descriptors(sock: socket.socket, most: int) -> tuple[bytes, list[int]]:
    """Receive one message with at most ``most`` descriptors, which are the caller's to close.

    None of them is inherited by a child. If the message is refused, they are closed.

    Raises:
        ConnectionError: the other end is gone, or the message was cut off.
        BlockingIOError: there is no message, and the socket does not wait.
    """
    fds = array.array("i")
    payload, ancillary, flags, _ = sock.recvmsg(
        MAX_PAYLOAD, socket.CMSG_LEN(most * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not payload or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        for fd in fds:
            os.close(fd)
        what = "a message was cut off" if payload else "the other end is gone"
        raise ConnectionError(f"{what}: no descriptors were received")
    return payload, list(fds)
