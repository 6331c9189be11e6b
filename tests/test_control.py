from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import sys

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve import control
from atomserve.control import BrokenChannel, Channel, Framer, frame, read_first
from atomserve.settings import Settings

text = st.text(max_size=40)
messages = st.lists(
    st.one_of(
        st.builds(control.ModelChanged, text, text, text),
        st.just(control.Serving()),
        st.just(control.Ready()),
        st.just(control.NotReady()),
        st.builds(control.Drained, st.integers(0, 10**9)),
        st.builds(control.Fatal, text, st.integers(0, 255)),
    ),
    max_size=6,
)


def big(size: int, number: int = 1) -> control.Surveyed:
    return control.Surveyed(number, msgspec.Raw(b'"%s"' % (b"x" * size)))


@given(messages, st.data())
def test_any_split_of_the_stream_gives_the_same_messages(
    sent: list[control.Report], data: st.DataObject
) -> None:
    stream = b"".join(frame(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    framer: Framer[control.Report] = Framer(control.Report)
    received: list[control.Report] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += framer.feed(stream[start:end])
    assert received == sent
    assert framer.missing == 4


@given(messages.filter(bool))
def test_reading_only_what_is_missing_never_reads_past_a_message(
    sent: list[control.Report],
) -> None:
    stream = io.BytesIO(b"".join(frame(message) for message in sent))
    framer: Framer[control.Report] = Framer(control.Report)
    while not (received := framer.feed(stream.read(framer.missing))):
        pass
    assert received == sent[:1]
    assert stream.tell() == len(frame(sent[0]))


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_awaited_and_nothing_else(data: bytes) -> None:
    framer: Framer[control.Report] = Framer(control.Report)
    try:
        framer.feed(data)
    except BrokenChannel:
        return
    assert framer.missing > 0


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(BrokenChannel, match="over the limit"):
        frame(big(control.MAX_FRAME))


@pytest.mark.parametrize("words", ["x" * 3_000_000, "a lone \ud800 surrogate", "\0" * 3_000_000])
def test_whatever_a_plugin_says_fits_into_a_message(words: str) -> None:
    said: list[control.Broken | control.Fatal | control.ModelChanged | control.ModelState] = [
        control.Broken(words),
        control.Fatal(words, 1),
        control.ModelChanged("a", "failed", words),
        control.ModelState("a", "failed", words),
    ]
    for message in said:
        assert len(frame(message)) < 20_000
    assert control.Broken(words).detail.startswith(words[:6])
    assert control.Broken("as it was").detail == "as it was"


def test_a_message_over_the_limit_is_refused_at_its_length() -> None:
    framer: Framer[control.Report] = Framer(control.Report)
    with pytest.raises(BrokenChannel, match="over the limit"):
        framer.feed((control.MAX_FRAME + 1).to_bytes(4, "big"))


def test_an_empty_message_is_refused() -> None:
    framer: Framer[control.Report] = Framer(control.Report)
    with pytest.raises(BrokenChannel, match="is none"):
        framer.feed(b"\0\0\0\0" + frame(control.Serving()))


def test_an_order_is_not_a_report() -> None:
    framer: Framer[control.Report] = Framer(control.Report)
    with pytest.raises(BrokenChannel, match="is none"):
        framer.feed(frame(control.Stop()))


def test_the_first_message_is_read_and_not_a_byte_more() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        configure = control.Configure(Settings(port=1), ({"a": 1},), (3,), 1)
        ours.sendall(frame(configure) + b"rest")
        assert read_first(theirs, control.Configure) == configure
        assert theirs.recv(100) == b"rest"


def test_a_peer_that_closes_before_its_first_message_is_broken() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(BrokenChannel, match="closed"):
            read_first(theirs, control.Configure)


def test_a_channel_carries_more_than_the_socket_holds() -> None:
    sent: list[control.Report] = [big(200_000, number) for number in range(10)]

    async def carry() -> list[control.Report]:
        ours, theirs = socket.socketpair()
        sender: Channel[control.Order] = Channel(ours, control.Order)
        receiver: Channel[control.Report] = Channel(theirs, control.Report)
        received = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.deliver)
            for message in sent:
                sender.post(message)
            async for message in receiver:
                received.append(message)
                if len(received) == len(sent):
                    break
            tasks.cancel_scope.cancel()
        sender.close()
        receiver.close()
        return received

    assert anyio.run(carry) == sent


def test_a_peer_that_does_not_read_is_broken_rather_than_queued_for_ever() -> None:
    async def overfill() -> None:
        ours, theirs = socket.socketpair()
        channel: Channel[control.Order] = Channel(ours, control.Order)
        with theirs, contextlib.closing(channel):
            for _ in range(100):
                channel.post(big(500_000))

    with pytest.raises(BrokenChannel, match="does not read"):
        anyio.run(overfill)


LACKING = """
import os, resource, socket, anyio
from atomserve import control
from atomserve.control import Channel


async def talk():
    ours, theirs = socket.socketpair()
    sender, receiver = Channel(ours, control.Report), Channel(theirs, control.Order)
    here = aiter(receiver)
    given = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    for pid, spare in enumerate([2, 1, 0, 2]):
        sender.post(control.Link("a", 0, pid), given)
        await sender.flush()
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, 1000))
        order = await anext(here)
        assert order.pid == pid
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
        try:
            for fd in receiver.descriptors(order.descriptors):
                os.close(fd)
            print("linked")
        except control.Lacking:
            print("lacking")
        assert os.dup(0) == free, "a descriptor was left open"
        os.close(free)


anyio.run(talk)
"""


def test_descriptors_that_do_not_arrive_are_missed_by_their_message_alone() -> None:
    command = [sys.executable, "-c", LACKING]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.stdout.split() == ["linked", "lacking", "lacking", "linked"], made.stderr


def test_a_peer_that_left_breaks_the_sender_and_ends_the_reader() -> None:
    async def talk() -> list[control.Order]:
        ours, theirs = socket.socketpair()
        theirs.close()
        channel: Channel[control.Order] = Channel(ours, control.Order)
        received = [order async for order in channel]
        channel.post(control.Serving())
        with pytest.raises(BrokenChannel, match="gone"):
            await channel.flush()
        channel.close()
        return received

    assert anyio.run(talk) == []
