"""Multipart forms, taken apart without copying their parts."""

from __future__ import annotations

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from atomserve.errors import BadRequest

MAX_PARTS = 128
MAX_HEADERS = 8
MAX_HEADER_BYTES = 4096
PLAIN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")


class Part(msgspec.Struct, frozen=True):
    """One part of a form; ``data`` views the body."""

    name: str
    data: memoryview
    media_type: str = ""
    is_file: bool = False


def split_form(body: bytes | bytearray | memoryview, content_type: str) -> list[Part]:
    """Take a multipart/form-data body apart.

    Raises:
        BadRequest: it is malformed, truncated, or has parts without names or too many of them.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("the Content-Type of the form names no boundary")
    whole = bytes(body) if isinstance(body, memoryview) else body
    splitter = _Splitter(whole)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": splitter.begin,
                "on_header_field": splitter.field,
                "on_header_value": splitter.value,
                "on_part_data": splitter.data,
                "on_part_end": splitter.end,
                "on_end": splitter.finish,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )
        parser.write(whole)  # type: ignore[arg-type] # it calls find and startswith alone
    except FormParserError as exc:
        raise BadRequest(f"a malformed form: {exc}") from exc
    if not splitter.finished:
        raise BadRequest("a truncated form: its last boundary is missing")
    return splitter.parts


class _Splitter:
    """Gathers one part at a time from the parser's calls."""

    def __init__(self, body: bytes | bytearray) -> None:
        self.view = memoryview(body).toreadonly()
        self.parts: list[Part] = []
        self.finished = False

    def begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise BadRequest(f"a form of too many parts; expected at most {MAX_PARTS}")
        self.headers: dict[bytes, bytes] = {}
        self.header = b""
        self.span = (0, 0)

    def field(self, data: bytes, start: int, end: int) -> None:
        self.header = bytes(data[start:end]).lower()

    def value(self, data: bytes, start: int, end: int) -> None:
        if self.header in self.headers:
            raise BadRequest("a form part with the same header twice")
        self.headers[self.header] = bytes(data[start:end])

    def data(self, _: bytes, start: int, end: int) -> None:
        # The whole body is written at once, so each part's data is one span of it.
        self.span = (start, end)

    def end(self) -> None:
        disposition, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        if disposition != b"form-data" or b"name" not in options:
            raise BadRequest("a form part without Content-Disposition: form-data; name=...")
        if self.headers.get(b"content-transfer-encoding", b"").lower() not in PLAIN_ENCODINGS:
            raise BadRequest("a form part with a Content-Transfer-Encoding; send it as it is")
        media_type, _ = parse_options_header(self.headers.get(b"content-type", b""))
        self.parts.append(
            Part(
                options[b"name"].decode("utf-8", "replace"),
                self.view[slice(*self.span)],
                media_type.decode("latin-1"),
                b"filename" in options,
            )
        )

    def finish(self) -> None:
        self.finished = True
