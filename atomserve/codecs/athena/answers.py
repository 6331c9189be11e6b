"""Answers as Athena clients expect them, of one request and of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from atomserve.codecs.athena.errors import Failure, OutputRefused
from atomserve.codecs.athena.nodes import END, ONCE, TEXT, TYPE_NAMES, Accept, Node

TextOut = Literal["raw", "base64", "gateway"]
"""How an answer's text is written.

``raw`` is upstream's for HTTP, ``base64`` its for WebSockets; its gateway writes base64 everywhere,
but embeds the JSON of an accept whose format is ``json``.
"""

PLAIN_TEXT: Mapping[str, str] = {"encoding": "utf8", "compress": "raw", "format": "plain"}
NIL = "wrapper output data is nil "
INVALID = "wrapper output data invalid(key or type)"

_encode = msgspec.json.Encoder().encode
_COMPATIBLE_STATUS = 500


class Expected(msgspec.Struct, frozen=True):
    """Which outputs a client may get, and how they are written.

    ``strict``: those alone which the client names in its ``parameter``, as upstream has it.
    Otherwise what it does not describe is described by ``derived``, of the wrapper's own class.
    """

    derived: Mapping[str, Accept] = {}
    strict: bool = False
    text: TextOut = "raw"

    def block(self, node: Node, accepts: Mapping[str, Accept]) -> dict[str, Any]:
        """Describe and write ``node``, without its ``seq`` and ``status``.

        Raises:
            OutputRefused: the client does not expect it.
        """
        accept = accepts.get(node.key)
        if accept is None:
            if self.strict:
                raise OutputRefused(INVALID)
            accept = self.derived.get(node.key)
        elif self.strict and accept.type not in (None, node.type):
            raise OutputRefused(INVALID)
        block: dict[str, Any] = dict(accept.desc if accept is not None else _usual(node))
        name = TYPE_NAMES[node.type] if 0 <= node.type < len(TYPE_NAMES) else "other"
        block[name] = self._text(node.data, block) if node.type == TEXT else node.data
        return block

    def _text(self, data: bytes | memoryview, block: dict[str, Any]) -> Any:
        if self.text == "raw":
            return str(data, "utf-8", "replace")
        if self.text == "gateway" and block.get("format") == "json":
            return _embedded(data)
        return data  # which the encoder writes as base64


def once_answer(
    nodes: Iterable[Node], accepts: Mapping[str, Accept], sid: str, expected: Expected
) -> bytes:
    """Write the answer of a request that went well: HTTP status 200.

    Raises:
        OutputRefused: there is no output, or one that the client does not expect.
    """
    payload = {}
    for node in nodes:
        payload[node.key] = block = expected.block(node, accepts)
        block["seq"] = "0"
        block["status"] = str(node.status)
    if not payload:
        raise OutputRefused(NIL)
    header = {"code": 0, "status": ONCE, "sid": sid}
    return _encode({"header": header, "payload": payload})


def once_error(failure: Failure, sid: str, *, compatible: bool = True) -> tuple[int, bytes]:
    """Return the HTTP status and the answer that tell of ``failure``.

    ``compatible``: the status is 500 whatever happened, as upstream's.
    """
    status = _COMPATIBLE_STATUS if compatible else failure.status
    return status, _safe({"header": failure.header(sid), "payload": None})


def stream_ack(sid: str, cid: str = "") -> bytes:
    """Write what confirms the first frame of a session."""
    return _encode({"header": _stream_header(sid, cid, 0)})


def stream_answer(
    blocks: Mapping[str, Mapping[str, Any]], *, status: int, sid: str, cid: str = ""
) -> bytes:
    """Write one result of a session."""
    return _encode({"header": _stream_header(sid, cid, status), "payload": blocks})


def stream_end(sid: str, cid: str = "") -> bytes:
    """Write what ends a session whose last result did not."""
    return _encode({"header": _stream_header(sid, cid, END)})


def stream_error(failure: Failure, sid: str, cid: str = "") -> bytes:
    """Write what ends a session that went wrong."""
    header = failure.header(sid)
    header["status"] = 0  # upstream's header always has it
    if cid:
        header["cid"] = cid
    return _safe({"header": header})


def _stream_header(sid: str, cid: str, status: int) -> dict[str, Any]:
    header = {"code": 0, "message": "success", "sid": sid, "status": status}
    if cid:
        header["cid"] = cid
    return header


def _safe(document: dict[str, Any]) -> bytes:
    try:
        return _encode(document)
    except UnicodeEncodeError:  # a wrapper's text may hold what has no UTF-8
        header = document["header"]
        header["message"] = header["message"].encode(errors="replace").decode()
        return _encode(document)


def _usual(node: Node) -> Mapping[str, str]:
    return PLAIN_TEXT if node.type == TEXT else {}


def _embedded(data: bytes | memoryview) -> Any:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    return msgspec.Raw(data)
