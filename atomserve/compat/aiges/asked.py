"""Requests and frames, of the native surface or of Athena, as a wrapper is given them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import msgspec

from atomserve.codecs.athena.errors import PayloadError
from atomserve.codecs.athena.nodes import ONCE, Accept, Node, OnceRequest
from atomserve.codecs.athena.requests import decode_request
from atomserve.codecs.athena.service import Said, Service, read_ask, read_said
from atomserve.codecs.codec import Codec
from atomserve.compat.aiges.configuration import text_of
from atomserve.compat.aiges.contract import (
    PARAMETER,
    PATCH,
    PAYLOAD,
    STATUS,
    Described,
    Native,
)
from atomserve.compat.aiges.parameters import Parameters
from atomserve.compat.aiges.shim.aiges.dto import DataListCls, DataListNode
from atomserve.engine.jobs import Payload
from atomserve.errors import Invalid
from atomserve.media.sources import Sources
from atomserve.surfaces.athena.signing import Signed, check_app, check_digest
from atomserve.surfaces.athena.talks import UNTOLD


class Asked:
    """One request, or the beginning of a session; ``params`` become the wrapper's own."""

    __slots__ = ("accepts", "params", "patch", "request", "sid")

    def __init__(self, sid: str, request: OnceRequest) -> None:
        self.sid = sid
        self.params: dict[str, Any] = request.params
        self.request = data_list(request.nodes)
        self.patch: Any = request.header.get(PATCH, 0)
        self.accepts: dict[str, Accept] = request.accepts


def data_list(nodes: Iterable[Node]) -> DataListCls:
    """Return nodes as wrappers know them; large data stay where they lie."""
    return DataListCls(
        [
            DataListNode(each.key, each.data, None, each.status, each.type, each.desc)
            for each in nodes
        ]
    )


class Reader:
    """Reads what one wrapper is asked, whatever surface it comes from."""

    def __init__(
        self,
        described: Described,
        service: Service,
        parameters: Parameters,
        sources: Sources | None = None,
    ) -> None:
        self._codec = Codec(described.contract, sources)
        self._inputs = {each.name: each for each in described.inputs}
        self._service = service
        self._parameters = parameters

    def once(self, payload: Payload) -> Asked:
        """Read a single request.

        Raises:
            AtomError: it is at fault.
        """
        if payload.form != "athena":
            request, _ = self._native(payload, ONCE)
            return self._asked(uuid4().hex, request)
        ask = read_ask(payload.query)
        if ask.digest:
            check_digest(Signed("", "", ask.digest), payload.body)
        request = decode_request(payload.body, text=self._service.text_in)
        if ask.app_id:
            check_app(Signed("", ask.app_id), request.app_id)
        return self._asked(ask.sid, request)

    def said(self, payload: Payload, sid: str) -> Said:
        """Read one frame of a session; over the native surface the session is ``sid``.

        Raises:
            AtomError: it is at fault.
        """
        if payload.form == "athena":
            return read_said(payload.body)
        request, status = self._native(payload, UNTOLD)
        return Said(sid, request, status is not None and status > 1)

    def begun(self, said: Said) -> Asked:
        """Return what a session begins with, as `once` does."""
        return self._asked(said.sid, said.request)

    def _asked(self, sid: str, request: OnceRequest) -> Asked:
        self._parameters.check(request.params)
        request.pass_headers(sid, self._service.header_pass)
        return Asked(sid, request)

    def _native(self, payload: Payload, status: int) -> tuple[OnceRequest, int | None]:
        values = dict(zip(self._codec.inputs, self._codec.decode(payload), strict=True))
        told = values.pop(STATUS, None) if STATUS not in self._inputs else None
        if told is not None and told not in range(4):
            raise Invalid("$.status: expected 0, 1, 2 or 3")
        patch = values.pop(PATCH, None) if PATCH not in self._inputs else None
        header = {} if patch is None else {PATCH: str(patch)}
        request = OnceRequest(header, {}, [], {}, told)
        place = status if told is None else told
        request.nodes += _open_nodes(values.pop(PAYLOAD, {}) if not self._inputs else {}, place)
        parameters = values.pop(PARAMETER, {}) if not self._inputs else {}
        for name, value in (*parameters.items(), *values.items()):
            native = self._inputs.get(name, Native(name, name, None))
            if value is None:
                continue
            if native.type is None:
                request.params[native.key] = text_of(value)
            else:
                request.nodes.append(Node(native.key, _data(native, value), native.type, place))
        return request, told


def _data(native: Native, value: Any) -> bytes | memoryview:
    if native.json:
        return msgspec.json.encode(value)
    return value.encode() if isinstance(value, str) else value


def _open_nodes(payload: dict[str, Any], status: int) -> list[Node]:
    """Read a payload without fields: text is text, an object is a block of Athena's."""
    nodes = []
    for key, value in payload.items():
        if isinstance(value, str):
            nodes.append(Node(key, value.encode(), status=status))
        elif isinstance(value, dict):
            block = msgspec.json.encode({"payload": {key: value}})
            nodes += decode_request(block, status=status).nodes
        else:
            raise PayloadError(f"payload.{key}: expected text or an object")
    return nodes
