"""Base64 as this server takes it: one text for the same bytes."""

from __future__ import annotations

import binascii


def from_base64(text: str) -> bytes:
    """Return the bytes that ``text`` is, in the standard alphabet, padded.

    Raises:
        ValueError: it is not so written.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
        _refuse_spare_bits(text, data)
    except ValueError as exc:
        raise ValueError(f"not base64 (standard alphabet, padded): {exc}") from None
    return data


def _refuse_spare_bits(text: str, data: bytes) -> None:
    """Refuse bits after the last byte: what they say would be lost without a word."""
    rest = data[len(data) - len(data) % 3 :]
    if rest and not text.endswith(binascii.b2a_base64(rest, newline=False).decode()):
        raise ValueError("the bits after its last byte are not zero")
