"""A sealed file, read as if it were not: decrypted chunk by chunk, each verified before its use."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from atomserve.errors import BadSeal
from atomserve.sealed.form import HEADER, TAG, read_header
from atomserve.sealed.keys import checked

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def open(path: str | os.PathLike[str], key: bytes) -> io.BufferedReader:
    """Open a sealed file for reading: a binary file, seekable, of which little is in memory.

    A wrong key and a file that was cut off or appended to are found out here; what was altered
    within, when it is read. What is read was verified.

    Raises:
        BadSeal: the file is not what was sealed with ``key``; reading raises it, too.
        ConfigError: ``key`` is none.
        MissingExtra: the extra ``sealed`` is not installed.
        OSError: the file cannot be read.
    """
    key = checked(key)
    raw = Unsealed(io.FileIO(path), key)
    return io.BufferedReader(raw, buffer_size=raw.chunk)


class Unsealed(io.RawIOBase):
    """The plain content; each read is filled as far as there is content."""

    def __init__(self, file: io.FileIO, key: bytes) -> None:
        self.name = str(file.name)
        self._file = file
        try:
            self._cipher = read_header(self._file.read(HEADER.size) or b"", key, self.name)
            self.chunk = self._cipher.chunk
            self._measure()
            self._sealed = memoryview(bytearray(self.chunk + TAG))
            self._plain = memoryview(bytearray(self.chunk))
            self._held = -1  # the number of the chunk in there
            self._position = 0
            self._hold(self._last)
        except BaseException:
            self.close()
            raise

    def _measure(self) -> None:
        sealed = os.fstat(self._file.fileno()).st_size - HEADER.size
        chunks = -(-sealed // (self.chunk + TAG))
        self.size = sealed - chunks * TAG
        self._last = chunks - 1
        if chunks < 1 or self.size < self._last * self.chunk:
            raise BadSeal(f"{self.name}: cut off, or something was appended")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning")
        self._position = start + offset
        return self._position

    def close(self) -> None:
        self._file.close()
        super().close()

    def readall(self) -> bytes:
        whole = io.BytesIO(bytes(max(self.size - self._position, 0)))
        with whole.getbuffer() as view:
            self.readinto(view)
        return whole.getvalue()

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        into = memoryview(buffer).cast("B")
        done = 0
        while done < len(into) and self._position < self.size:
            taken = self._read_some(into[done:])
            done += taken
            self._position += taken
        return done

    def _read_some(self, into: memoryview) -> int:
        number, skipped = divmod(self._position, self.chunk)
        length = self._length(number)
        if not skipped and len(into) >= length and number != self._held:
            self._open(number, into[:length])
            return length
        self._hold(number)
        taken = min(length - skipped, len(into))
        into[:taken] = self._plain[skipped : skipped + taken]
        return taken

    def _hold(self, number: int) -> None:
        if number != self._held:
            self._held = -1
            self._open(number, self._plain[: self._length(number)])
            self._held = number

    def _length(self, number: int) -> int:
        return min(self.chunk, self.size - number * self.chunk)

    def _open(self, number: int, into: memoryview) -> None:
        self._file.seek(HEADER.size + number * (self.chunk + TAG))
        sealed = self._sealed[: len(into) + TAG]
        read = 0
        while read < len(sealed) and (more := self._file.readinto(sealed[read:])):
            read += more
        if read < len(sealed):
            raise BadSeal(f"{self.name}: cut off while it was read")
        last = number == self._last
        if not self._cipher.open_into(number, last, sealed, into):
            raise BadSeal(f"{self.name}: {self._what_is_wrong(number, last, sealed, into)}")

    def _what_is_wrong(self, number: int, last: bool, sealed: memoryview, into: memoryview) -> str:
        known = self._cipher.open_into(number, not last, sealed, into)
        into[:] = bytes(len(into))
        if known:
            return "cut off" if last else "something was appended"
        return f"chunk {number} was altered, or is out of order"
