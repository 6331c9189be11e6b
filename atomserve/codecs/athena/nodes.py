"""What an Athena request and its answer are made of, whatever carries them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

TEXT, AUDIO, IMAGE, VIDEO, OTHER = range(5)
"""What a node's data are."""
TYPE_NAMES = ("text", "audio", "image", "video", "other")
TYPES: Mapping[str, int] = MappingProxyType({name: i for i, name in enumerate(TYPE_NAMES)})

BEGIN, CONTINUE, END, ONCE = range(4)
"""Where in its stream a node stands; ``ONCE`` is a stream of one."""


class Node(msgspec.Struct):
    """One named piece of data, of a request or of an answer."""

    key: str
    data: Any = b""  # bytes or a memoryview: msgspec decodes no union of the two
    type: int = TEXT
    status: int = ONCE
    desc: dict[str, str] = {}
    """What the client said of it: ``encoding``, ``compress``, ``format``, ``seq`` and the like."""


class Accept(msgspec.Struct, frozen=True):
    """One output that the client, or the wrapper's response class, names."""

    type: int | None = None
    """None where nothing was said of it."""
    desc: Mapping[str, str] = {}
    """``encoding``, ``compress`` and ``format``, which the answer repeats."""


class OnceRequest(msgspec.Struct):
    """One request, or one frame of a stream, as plain data; every dict is its own."""

    header: dict[str, str]
    params: dict[str, str]
    nodes: list[Node]
    accepts: dict[str, Accept]
    status: int | None = None
    """The frame's place in its stream, where the header tells it."""

    @property
    def app_id(self) -> str:
        """Return what gateway clients call ``app_id`` and generated schemas ``appid``."""
        return self.header.get("app_id") or self.header.get("appid", "")

    @property
    def cid(self) -> str:
        """Return which of the sessions of a shared WebSocket is meant."""
        return self.header.get("cid", "")

    def pass_headers(self, sid: str, names: Iterable[str] = ()) -> None:
        """Give the wrapper the request's ``sid``, and the ``names`` of the header, as parameters.

        What the client has sent as a parameter stays.
        """
        for name in names:
            if name in self.header:
                self.params.setdefault(name, self.header[name])
        self.params.setdefault("sid", sid)
