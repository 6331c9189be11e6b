"""The other process of test_arenas: receives segments and does to them what it is asked to."""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from atomserve.transport.arenas import Place
from atomserve.transport.descriptors import receive_descriptors
from atomserve.transport.frames import Decoder, Share
from atomserve.transport.mappings import Mapping

PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    side = socket.socket(fileno=int(sys.argv[1]))
    decoder: Decoder[Share] = Decoder(Share)
    payload, fds = receive_descriptors(side, 1)
    (share,) = decoder.feed(payload)
    act = {"attack": attack, "read": read}[sys.argv[2]]
    side.send(json.dumps(act(share, fds[0], side)).encode())
    side.recv(1)  # Until the test has looked, or is gone.


def read(share: Share, fd: int, side: socket.socket) -> Any:
    mapping = Mapping(1 << 30)
    mapping.add(share.segment, fd, share.size)
    place = Place(*json.loads(side.recv(1000)))
    return bytes(mapping.root(place, lambda _: None)).decode()


def attack(share: Share, fd: int, _: socket.socket) -> dict[str, str]:
    readable = mmap.mmap(fd, share.size, mmap.MAP_SHARED, mmap.PROT_READ)
    address = ctypes.c_void_p(_address(readable))
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    attacks: dict[str, Callable[[], object]] = {
        "map": lambda: mmap.mmap(fd, share.size),
        "map again": lambda: mmap.mmap(again, share.size),
        "write": lambda: os.pwrite(fd, b"!", 0),
        "write again": lambda: os.pwrite(again, b"!", 0),
        "shrink": lambda: os.ftruncate(fd, 4096),
        "grow": lambda: os.ftruncate(fd, share.size * 2),
        "add a seal": lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        "protect": lambda: _check(libc.mprotect(address, 4096, 3)),
        "punch": lambda: _check(libc.fallocate(fd, PUNCH_HOLE, ctypes.c_long(0), 4096)),
        "remove": lambda: _check(libc.madvise(address, 4096, mmap.MADV_REMOVE)),
    }
    return {name: _outcome(function) for name, function in attacks.items()}


def _address(memory: mmap.mmap) -> int:
    import numpy as np

    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _outcome(function: Callable[[], object]) -> str:
    try:
        function()
    except OSError:
        return "refused"
    return "done"


main()
