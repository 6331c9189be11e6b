"""One session of a WebSocket: what was said in it, and what that makes of the next thing said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from atomserve.codecs.athena.nodes import BEGIN, CONTINUE, END, ONCE, Accept, Node, OnceRequest
from atomserve.surfaces.athena.steps import Frame

UNTOLD = -1
"""The status of a node that tells none."""
LAST = (END, ONCE)


class Talk:
    """One session: what was said in it."""

    __slots__ = ("accepts", "acked", "began", "cid", "heard_all", "keys", "seq", "sid", "told")

    def __init__(self, sid: str, cid: str, now: float, accepts: Mapping[str, Accept]) -> None:
        self.sid = sid
        self.cid = cid
        self.began = now
        self.accepts = accepts
        self.seq = 0
        """Frames heard."""
        self.keys: dict[str, bool] = {}
        """Each input heard of, and whether it has ended."""
        self.heard_all = False
        self.acked = False
        self.told: dict[str, int] = {}
        """How many results each output has had."""

    def hear(self, request: OnceRequest) -> Frame:
        """Count one more frame, and give each of its nodes a status."""
        self.seq += 1
        for node in request.nodes:
            self.keys[node.key] = node.status in LAST or request.status in LAST
        if request.status is None:
            self.heard_all = bool(self.keys) and all(self.keys.values())
            usual = BEGIN if self.seq == 1 else CONTINUE
        else:  # the header's word counts: a text may end in a frame that audio will follow
            self.heard_all = request.status in LAST
            usual = request.status
        for node in request.nodes:
            if node.status == UNTOLD:
                node.status = usual
        return Frame(self.sid, self.seq, request, self.heard_all, self.cid)


def distinct(nodes: Iterable[Node]) -> Iterator[list[Node]]:
    """Split ``nodes`` where a key comes again, since a payload has each key once."""
    group: dict[str, Node] = {}
    for node in nodes:
        if node.key in group:
            yield [*group.values()]
            group = {}
        group[node.key] = node
    if group:
        yield [*group.values()]


def status_of(nodes: list[Node]) -> int:
    """Tell the status of a result: one output that ends is the end."""
    found = {node.status for node in nodes}
    for last in (ONCE, END):
        if last in found:
            return last
    return BEGIN if found == {BEGIN} else CONTINUE
