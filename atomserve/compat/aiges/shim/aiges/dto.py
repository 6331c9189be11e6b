"""The objects that requests and results are made of, one kind for every dialect of the SDK."""

# ruff: noqa: PLR0917 - the order of arguments is what wrappers know
from __future__ import annotations

import base64
import builtins
import json
import logging
import queue
from collections.abc import Iterator
from typing import Any, TypeAlias

from atomserve.compat.aiges.routing import ROUTES
from atomserve.compat.aiges.shim.aiges.core.types import (
    AUDIO,
    IMAGE,
    STRING,
    VIDEO,
    DataAudio,
    DataBegin,
    DataContinue,
    DataEnd,
    DataImage,
    DataOnce,
    DataPer,
    DataText,
    DataVideo,
    Once,
    Status,
    Types,
)
from atomserve.compat.aiges.values import size, text

__all__ = [
    "AUDIO",
    "IMAGE",
    "STRING",
    "VIDEO",
    "DataAudio",
    "DataBegin",
    "DataContinue",
    "DataEnd",
    "DataImage",
    "DataListCls",
    "DataListNode",
    "DataOnce",
    "DataPer",
    "DataText",
    "DataVideo",
    "Once",
    "Response",
    "ResponseData",
    "SessionCreateResponse",
    "Status",
    "Types",
    "callback",
    "callback_metric",
    "callback_trace",
    "init_rq",
]

# Inside these classes `list`, `len` and `type` are what AIGES calls their attributes.
Nodes: TypeAlias = "builtins.list[DataListNode]"
Items: TypeAlias = "builtins.list[ResponseData]"

_log = logging.getLogger("aiges")


class DataListNode:
    """One piece of a request; large ones lie in shared memory until `data` asks for bytes."""

    def __init__(
        self,
        key: Any = "",
        data: Any = b"",
        len: int | None = None,
        status: int = Once,
        type: int = DataText,
        desc: dict[str, Any] | None = None,
    ) -> None:
        self.key = key
        self.status = status
        self.type = type
        self.desc: dict[str, Any] = {} if desc is None else desc
        self._given = data
        self._bytes: Any = None
        self._len = len

    @property
    def data(self) -> Any:
        """The piece itself: bytes, copied out of shared memory on first use."""
        if not isinstance(self._given, memoryview):
            return self._given
        if self._bytes is None:
            self._bytes = self._given.tobytes()
        return self._bytes

    @data.setter
    def data(self, value: Any) -> None:
        self._given = value
        self._bytes = None

    def get_data(self) -> Any:
        """Return the piece without a copy: a view where it lies in shared memory."""
        return self._given

    @property
    def len(self) -> int:
        """The piece's size, unless another was assigned."""
        return size(self._given) if self._len is None else self._len

    @len.setter
    def len(self, value: int) -> None:
        self._len = value

    def __repr__(self) -> str:
        return f"<DataListNode {self.key}: {self.len} bytes, status {self.status}>"


class DataListCls:
    """The pieces of one request, in their order."""

    def __init__(self, list: Nodes | None = None) -> None:
        self.list: Nodes = [] if list is None else list

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the first piece called ``key``, or ``default``; the key may be bytes."""
        name = text(key)
        return next((node for node in self.list if text(node.key) == name), default)

    def __iter__(self) -> Iterator[DataListNode]:
        return iter(self.list)

    def __len__(self) -> int:
        return builtins.len(self.list)

    def __bool__(self) -> bool:
        return True  # `if reqData:` has always meant "was I given one"

    def __repr__(self) -> str:
        return f"<DataListCls {self.list}>"


class ResponseData:
    """One piece of a result; takes its data as a constructor's argument, `data` or `setData`."""

    def __init__(
        self,
        key: Any = "",
        data: Any = b"",
        length: int | None = None,
        type: int = DataText,
        status: int = Once,
        *,
        len: int | None = None,
        desc: dict[str, Any] | None = None,
    ) -> None:
        if isinstance(data, int):  # (key, len, status, type): the constructor of `aiges_embed`
            len, data, status = data, b"", status if length is None else length
            length = None
        self.key = key
        self.type = type
        self.status = status
        self.desc: dict[str, Any] = {} if desc is None else desc
        self._len = length if len is None else len
        self.data = data

    @property
    def data(self) -> bytes | memoryview:
        """The piece itself; text is kept as UTF-8."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self.given: builtins.type[Any] = builtins.type(value)
        """What the data was given as, before it became bytes."""
        self._data = stored(value)

    @property
    def len(self) -> int:
        """The data's size, unless another was assigned; what is sent is the data."""
        return size(self._data) if self._len is None else self._len

    @len.setter
    def len(self, value: int) -> None:
        self._len = value

    def setData(self, data: Any) -> None:
        """Set the data, and the size with it."""
        self.data = data
        self._len = None

    def setDataType(self, type: int) -> None:
        """Set the data's kind: 0 text, 1 audio, 2 image, 3 video."""
        if type not in (DataText, DataAudio, DataImage, DataVideo):
            _log.warning("%r is no type of data that clients know: use 0 to 3", type)
        self.type = type

    def toJSON(self) -> str:
        """Return the piece as JSON; data that is no text is base64."""
        return json.dumps(self._plain(), ensure_ascii=False)

    def _plain(self) -> dict[str, Any]:
        return {
            "key": text(self.key),
            "data": _legible(self.data),
            "len": self.len,
            "type": self.type,
            "status": self.status,
        }

    def __repr__(self) -> str:
        return f"<ResponseData {self.key}: {self.len} bytes, status {self.status}>"


class Response:
    """A result: its pieces, or an error code other than 0."""

    def __init__(self, list: Items | None = None, error_code: int = 0) -> None:
        self.list: Items = [] if list is None else list
        self.error_code = error_code

    def response_err(self, code: int) -> Response:
        """Make this an error, and return it."""
        self.error_code = code
        return self

    def toJSON(self) -> str:
        """Return the result as JSON."""
        pieces = [item._plain() for item in self.list]
        return json.dumps({"error_code": self.error_code, "list": pieces}, ensure_ascii=False)

    def __repr__(self) -> str:
        return f"<Response {self.error_code}: {self.list}>"


class SessionCreateResponse:
    """The name that a wrapper gives a new session, or an error code other than 0."""

    def __init__(self, handle: str = "", error_code: int = 0) -> None:
        self.handle = handle
        self.error_code = error_code

    def toJSON(self) -> str:
        """Return both as JSON."""
        return json.dumps({"handle": self.handle, "error_code": self.error_code})

    def __repr__(self) -> str:
        return f"<SessionCreateResponse {self.error_code}: {self.handle}>"


def callback(response: Any, tag: Any = "", sid: Any = None) -> int:
    """Send a result to the session of ``tag``: its usrTag, sid or handle; 0, or -1 if it is gone.

    May be called from any thread, and never raises.
    """
    return ROUTES.callback(response, tag, sid)


def callback_metric(tag: Any, key: Any, count: Any) -> int:
    """Count ``count`` of ``key`` for a session; always 0."""
    return ROUTES.metric(tag, key, count)


def callback_trace(tag: Any, key: Any, value: Any) -> int:
    """Note ``value`` on a session's trace; always 0."""
    return ROUTES.trace(tag, key, value)


def init_rq() -> queue.Queue[Any] | None:
    """Return the queue of a local run; there is none where requests are served."""
    return ROUTES.local


def stored(value: Any) -> bytes | memoryview:
    """Return ``value`` as bytes, or as a view where it is a buffer of another kind."""
    if isinstance(value, bytes | memoryview):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytearray):
        return bytes(value)  # a copy: its owner may go on writing
    try:
        return memoryview(value)
    except TypeError:
        raise TypeError(f"data must be bytes, not {type(value).__name__}") from None


def _legible(data: bytes | memoryview) -> str:
    raw = bytes(data)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode()
