"""Asynchronous requests of AIGES wrappers as sessions: put together, asked once, bounded."""

from typing import Any

import pytest

from atomserve.compat.aiges.deferred import MOST_SAID, Deferred
from atomserve.compat.aiges.shim.aiges.dto import DataListCls, DataListNode
from atomserve.compat.aiges.shim.aiges.sdk import WrapperBase
from atomserve.errors import TooLarge


class Later(WrapperBase):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def wrapperOnceExecAsync(
        self, params: dict[str, Any], reqData: DataListCls, sid: str, persId: int = 0
    ) -> int:
        self.asked.append([(node.key, node.data, node.status) for node in reqData.list])
        return 3


def piece(key: str, data: Any, status: int) -> DataListNode:
    return DataListNode(key, data, None, status, 0)


def test_a_request_is_asked_once_when_each_input_has_ended() -> None:
    wrapper = Later()
    bound = Deferred(wrapper)
    handle = bound.create({}, sid="s").handle
    first = DataListCls([piece("text", b"a", 3), piece("wav", memoryview(b"1"), 0)])
    assert bound.write(handle, first) == 0
    assert bound.write(handle, DataListCls([piece("wav", b"2", 1)])) == 0
    assert not wrapper.asked
    assert bound.write(handle, DataListCls([piece("wav", b"3", 2)])) == 3
    assert bound.write(handle, DataListCls([piece("wav", b"4", 2)])) == 0
    assert wrapper.asked == [[("text", b"a", 3), ("wav", b"123", 3)]]
    assert bound.destroy(handle) == 0
    assert bound.destroy(handle) == 0


def test_a_frame_without_payload_ends_what_was_said_and_begins_nothing() -> None:
    wrapper = Later()
    bound = Deferred(wrapper)
    handle = bound.create({}, sid="s").handle
    bound.write(handle, DataListCls([]))
    bound.write(handle, DataListCls([piece("text", b"a", 0)]))
    assert not wrapper.asked
    bound.write(handle, DataListCls([]))
    assert wrapper.asked == [[("text", b"a", 3)]]


def test_what_is_said_is_bounded() -> None:
    bound = Deferred(Later())
    handle = bound.create({}, sid="s").handle
    half = DataListCls([piece("wav", bytes(MOST_SAID // 2 + 1), 1)])
    assert bound.write(handle, half) == 0
    with pytest.raises(TooLarge):
        bound.write(handle, half)
