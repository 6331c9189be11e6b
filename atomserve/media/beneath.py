"""A file below a folder, opened so that no link and no ``..`` leads out of it."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence

OPENAT2 = 437
"""The number of the system call; Python has no function for it."""
NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x02, 0x04, 0x08

# A FIFO would wait for its writer, and a terminal become ours.
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
ONLY_PATH = getattr(os, "O_PATH", os.O_RDONLY)
"""A folder need not be readable for its files to be; only Linux knows this."""
FOLDER = ONLY_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ABSENT = (errno.ENOSYS, errno.EPERM)
"""What an older kernel says of the call, or a sandbox that does not know it."""


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(folder: int, parts: Sequence[bytes]) -> int:
    """Open the file that ``parts`` name below ``folder``, and return its descriptor.

    Raises:
        OSError: there is none, or a link lies on the way.
    """
    if sys.platform == "linux":
        try:
            return _openat2(folder, b"/".join(parts))
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise
    return walk_beneath(folder, parts)


def _openat2(folder: int, path: bytes) -> int:
    how = _How(FLAGS, 0, NO_MAGICLINKS | NO_SYMLINKS | BENEATH)
    call = ctypes.CDLL(None, use_errno=True).syscall
    fd: int = call(
        ctypes.c_long(OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def walk_beneath(folder: int, parts: Sequence[bytes]) -> int:
    """Do what `open_beneath` does where the kernel cannot: folder by folder."""
    *folders, name = parts
    here = os.dup(folder)
    try:
        for each in folders:
            inner = os.open(each, FOLDER, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(name, FLAGS | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)
