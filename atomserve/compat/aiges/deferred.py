"""Asynchronous single requests as sessions: asked when all is said, told as it is called back."""

from __future__ import annotations

from typing import Any

from atomserve.codecs.athena.codes import Operation
from atomserve.codecs.athena.nodes import END, ONCE
from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.shim.aiges.dto import DataListCls, DataListNode, SessionCreateResponse
from atomserve.errors import TooLarge

MOST_SAID = 64 << 20
"""Bytes that a client may say before its last frame."""


class Deferred(Bound):
    """A wrapper without sessions of its own, called as if it had them.

    Language models often have `wrapperOnceExecAsync` alone, and call back word by word.
    """

    writing: Operation = "exec"

    def __init__(self, wrapper: Any) -> None:
        super().__init__(wrapper)
        self._sayings: dict[str, _Saying] = {}

    def has(self, method: str) -> bool:
        """Say that there is a session, whose results are all called back."""
        return method in ("create", "write", "destroy")

    def create(
        self, params: dict[str, Any], *, sid: str, tag: str = "", patch: Any = 0
    ) -> SessionCreateResponse:
        """Begin to listen."""
        self._sayings[sid] = _Saying(params, patch)
        return SessionCreateResponse(sid)

    def write(self, handle: str, request: DataListCls, *, sid: str = "") -> int:
        """Take the next piece; with the last one the wrapper is asked."""
        saying = self._sayings[handle]
        if saying.asked or not saying.hears(request):
            return 0
        saying.asked = True
        return self.once_async(saying.params, saying.whole(), sid=sid, tag=sid, patch=saying.patch)

    def destroy(self, handle: str, *, sid: str = "") -> int:
        """Forget what was said; `callback` tells the wrapper that nobody listens any more."""
        self._sayings.pop(handle, None)
        return 0


class _Saying:
    """What a client has said so far."""

    def __init__(self, params: dict[str, Any], patch: Any) -> None:
        self.params = params
        self.patch = patch
        self.asked = False
        self._nodes: dict[str, list[DataListNode]] = {}
        self._size = 0

    def hears(self, request: DataListCls) -> bool:
        """Take a piece, and say whether it is the last: an empty one, or the end of each input."""
        for node in request.list:
            self._nodes.setdefault(node.key, []).append(node)
            self._size += node.len
        if self._size > MOST_SAID:
            raise TooLarge(f"a request of more than {MOST_SAID} bytes")
        ended = all(nodes[-1].status in (END, ONCE) for nodes in self._nodes.values())
        return bool(self._nodes) and (ended or not request.list)

    def whole(self) -> DataListCls:
        """Return all pieces put together, each input once."""
        found = []
        for key, nodes in self._nodes.items():
            data = nodes[0].get_data()
            if len(nodes) > 1:
                data = b"".join(node.get_data() for node in nodes)
            found.append(DataListNode(key, data, None, ONCE, nodes[0].type, nodes[0].desc))
        return DataListCls(found)
