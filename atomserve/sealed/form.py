"""The form of a sealed file: AES-256-GCM in chunks whose order and end are authenticated.

    magic (16)  version (1)  log2 of the chunk's size (1)  salt (32)  check (32)
    chunk  tag (16)  chunk  tag (16) ...

Each file has a key of its own, derived with its salt and all that stands before it, so that an
altered header gives another key, and no nonce is used twice. The check is derived with it: it
tells a wrong key, and commits the file to one. A chunk's nonce is a derived prefix, its number,
and whether it is the last one (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizar).
"""

from __future__ import annotations

import hmac
import struct
from types import ModuleType
from typing import TYPE_CHECKING

from atomserve.errors import BadSeal, MissingExtra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"atomserve-sealed"
VERSION = 1
TAG = 16
HEADER = struct.Struct("!16sBB32s32s")
SALT_LENGTH = 32
LOG2_CHUNK = 18
"""256 KiB: what fits into a core's cache is decrypted fastest."""
LOG2_CHUNKS = range(10, 25)
MOST_CHUNKS = 2**32

_DERIVED = struct.Struct("!32s7s32s")
_NONCE = struct.Struct("!7sI?")


class Cipher:
    """Seals and opens the chunks of one file."""

    def __init__(self, key: bytes, salt: bytes, log2_chunk: int) -> None:
        hashes, aead, hkdf = _library()
        about = HEADER.pack(MAGIC, VERSION, log2_chunk, salt, b"")
        derive = hkdf.HKDF(hashes.SHA256(), length=_DERIVED.size, salt=salt, info=about).derive
        own, self._prefix, check = _DERIVED.unpack(derive(key))
        self._aead: AESGCM = aead.AESGCM(own)
        self.header = HEADER.pack(MAGIC, VERSION, log2_chunk, salt, check)
        self.chunk = 1 << log2_chunk

    def nonce(self, number: int, last: bool) -> bytes:
        return _NONCE.pack(self._prefix, number, last)

    def seal(self, number: int, last: bool, plain: bytes) -> bytes:
        return self._aead.encrypt(self.nonce(number, last), plain, None)

    def open_into(self, number: int, last: bool, sealed: memoryview, into: memoryview) -> bool:
        """Write the chunk into ``into``; if it is not that one, clear that and return False."""
        from cryptography.exceptions import InvalidTag

        try:
            self._aead.decrypt_into(self.nonce(number, last), sealed, None, into)
        except InvalidTag:
            into[:] = bytes(len(into))
            return False
        return True


def read_header(header: bytes, key: bytes, name: str) -> Cipher:
    """Return the cipher of the file ``name`` that begins with ``header``.

    Raises `BadSeal` if it is not a sealed file, or was sealed with another key.
    """
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise BadSeal(f"{name}: not a sealed file")
    _, version, log2_chunk, salt, _ = HEADER.unpack(header)
    if version != VERSION or log2_chunk not in LOG2_CHUNKS:
        raise BadSeal(f"{name}: sealed in a form that this version does not know")
    cipher = Cipher(key, salt, log2_chunk)
    if not hmac.compare_digest(cipher.header, header):
        raise BadSeal(f"{name}: sealed with another key, or its header was altered")
    return cipher


def _library() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.ciphers import aead
        from cryptography.hazmat.primitives.kdf import hkdf
    except ImportError as exc:
        message = "sealed files need the extra: pip install 'atomserve[sealed]'"
        raise MissingExtra(message) from exc
    return hashes, aead, hkdf
