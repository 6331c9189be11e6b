"""A session of an AIGES wrapper whose results nobody reads is bounded."""

import itertools
from queue import SimpleQueue
from typing import Any

import pytest

from atomserve.codecs.athena.nodes import Node, OnceRequest
from atomserve.codecs.athena.service import Said
from atomserve.compat.aiges.asked import Asked
from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.calls import Calls
from atomserve.compat.aiges.conversation import MOST_HELD, Conversation
from atomserve.compat.aiges.shim.aiges.dto import (
    DataListCls,
    Response,
    ResponseData,
    SessionCreateResponse,
    callback,
)
from atomserve.compat.aiges.shim.aiges.sdk import WrapperBase
from atomserve.errors import PluginFailed


class Flood(WrapperBase):
    def __init__(self) -> None:
        super().__init__()
        self.taken = self.destroyed = 0

    def wrapperCreate(self, params: dict[str, Any], sid: str) -> SessionCreateResponse:
        return SessionCreateResponse(sid)

    def wrapperWrite(self, handle: str, req: DataListCls, sid: str) -> int:
        data = bytes(MOST_HELD // 4)
        for self.taken in itertools.count():
            if callback(Response([ResponseData("result", data, status=1)]), sid):
                return 0

    def wrapperDestroy(self, handle: str) -> int:
        self.destroyed += 1
        return 0


def test_a_flood_of_results_is_refused_and_ends_its_session() -> None:
    wrapper = Flood()
    inlet: SimpleQueue[Any] = SimpleQueue()
    said = Said("s", OnceRequest({}, {}, [Node("text", b"x")], {}), True)
    inlet.put(object())
    talk = Conversation(Calls(Bound(wrapper), "flood"), inlet, lambda item: said)
    told = talk.told(lambda first: Asked(first.sid, first.request))
    assert next(told).opened
    assert [len(next(told).nodes) for _ in range(4)] == [1, 1, 1, 1]
    with pytest.raises(PluginFailed, match="faster than the client reads"):
        next(told)
    assert (wrapper.taken, wrapper.destroyed) == (4, 1)
