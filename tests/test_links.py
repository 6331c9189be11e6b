"""Links end with what is no frame and with a handler that fails; only the former is nonsense."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from atomserve.backends.links import Link
from atomserve.transport.arenas import Arena, Place
from atomserve.transport.descriptors import send_descriptors
from atomserve.transport.frames import Answered, Cancel, Done, FromWorker, Share, Unshare, encode

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def told(data: bytes, handle: Callable[[Link, Any], None]) -> tuple[list[Any], list[Any]]:
    """Send ``data`` to a link, and return what it logs and what its loop reports by its end."""
    ours, theirs = socket.socketpair()
    side, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lost, failed = anyio.Event(), list[Any]()
    arena = Arena(1 << 20, lambda _: None)
    link = Link(FromWorker, side, arena=arena, on_frame=lambda f: handle(link, f), on_lost=lost.set)
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: failed.append(context["exception"])
    )
    with ours, theirs, other, capture_logs() as logged:
        await link.open(ours)
        theirs.sendall(data)
        with anyio.fail_after(10):
            await lost.wait()
    arena.close()
    return [entry["event"] for entry in logged], failed


def look(link: Link, frame: Any) -> None:
    link.look(frame.body, lambda _: None)


NOWHERE = Answered(1, Place(5, 0, 10), "", True)


@pytest.mark.parametrize(
    "data", [b"\xff" * 20, encode(Unshare(7)), encode(NOWHERE), encode(Cancel(1))]
)
async def test_what_makes_no_sense_is_logged_as_that(data: bytes) -> None:
    assert await told(data, look) == (["link.nonsense"], [])


async def test_a_segment_may_go_that_nobody_has_looked_at() -> None:
    ours, theirs = socket.socketpair()
    side, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arena, heard = Arena(1 << 20), anyio.Event()
    link = Link(
        FromWorker, side, arena=Arena(0), on_frame=lambda _: heard.set(), on_lost=lambda: None
    )
    block = arena.take(100)
    assert block is not None
    with ours, theirs, other:
        await link.open(ours)
        segment = block.segment
        send_descriptors(other, encode(Share(segment.number, segment.size)), [segment.fd])
        theirs.sendall(encode(Unshare(segment.number)) + encode(Done(1)))
        with anyio.fail_after(10):
            await heard.wait()
        link.abort()
        await anyio.sleep(0)
    arena.close()


@pytest.mark.parametrize("failure", [KeyError, ValueError])
async def test_a_handler_that_fails_is_not_called_nonsense(
    failure: type[Exception],
) -> None:
    def stumble(link: Link, frame: Any) -> None:
        raise failure("a mistake of ours")

    logged, (found,) = await told(encode(NOWHERE), stumble)
    assert logged == []
    assert type(found) is failure
