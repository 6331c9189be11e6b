from __future__ import annotations

import time
from typing import Any, cast, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomserve.errors import (
    ArenaFull,
    AtomError,
    BadRequest,
    Fault,
    Invalid,
    MethodNotAllowed,
    Overloaded,
    PluginFailed,
    all_errors,
)
from atomserve.transport import frames as transport
from atomserve.transport.arenas import Place
from atomserve.transport.frames import (
    MAX_FRAME,
    Answered,
    BrokenFrame,
    Cancel,
    Decoder,
    Failed,
    FromWorker,
    Run,
    Share,
    ToWorker,
    encode,
    encode_into,
    error_of,
    failure_of,
)

numbers = st.integers(0, 2**64 - 1)
text = st.text(max_size=20)
seconds = st.floats(0, 1e9)
places = st.builds(Place, numbers, numbers, numbers)
bodies = st.one_of(st.binary(max_size=300), places)
forms = st.sampled_from(["json", "msgpack", "multipart", "npy", "raw"])

to_worker = st.one_of(
    st.builds(
        Run,
        job=numbers,
        takes=st.sampled_from(["call", "stream", "session"]),
        form=forms,
        answer=st.sampled_from(["json", "msgpack", "npy", "media"]),
        body=bodies,
        deadline=st.none() | seconds,
        media_type=text,
        query=text,
        answer_type=text,
        request_id=text,
        tenant=text,
        headers=st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=4),
    ),
    st.just(transport.BatchEnd()),
    st.builds(Cancel, numbers),
    st.builds(transport.Earn, numbers, numbers),
    st.builds(transport.Item, numbers, forms, bodies),
    st.builds(transport.ItemsEnd, numbers),
    st.builds(transport.Free, places),
    st.builds(transport.Unshare, numbers),
)
from_worker = st.one_of(
    st.builds(Answered, numbers, bodies, text, st.booleans()),
    st.builds(transport.Ended, numbers),
    st.builds(
        Failed,
        job=numbers,
        code=text,
        detail=text,
        errors=st.lists(st.builds(Fault, text, text), max_size=3).map(tuple),
        retry_after=st.none() | seconds,
        error_id=text,
    ),
    st.builds(transport.Took, numbers, numbers),
    st.builds(transport.Release, places),
    st.builds(transport.Done, numbers),
    st.builds(transport.Window, numbers),
    st.builds(transport.Ledger, places),
    st.builds(transport.Unshare, numbers),
)


@pytest.mark.parametrize(("kinds", "frames"), [(ToWorker, to_worker), (FromWorker, from_worker)])
@settings(deadline=None)
@given(data=st.data())
def test_any_split_of_the_stream_gives_the_same_frames(
    kinds: Any, frames: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    sent = data.draw(st.lists(frames, max_size=8))
    stream = bytearray()
    for frame in sent:
        encode_into(stream, frame)
    assert stream == b"".join(encode(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    decoder: Decoder[Any] = Decoder(kinds)
    received = []
    reused = bytearray(len(stream))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        # As a BufferedProtocol does: one buffer, written over and over.
        reused[: end - start] = stream[start:end]
        received += decoder.feed(memoryview(reused)[: end - start])
        reused[: end - start] = b"\xff" * (end - start)
    assert received == sent
    assert repr(decoder) == "<Decoder: 0 bytes held>"


@pytest.mark.parametrize(("kinds", "frames"), [(ToWorker, to_worker), (FromWorker, from_worker)])
def test_every_frame_has_an_example_and_a_sentence(
    kinds: Any, frames: st.SearchStrategy[Any]
) -> None:
    classes = get_args(kinds)
    assert len(classes) in (8, 9)
    tags = {cls.__struct_config__.tag for cls in classes}
    assert len(tags) == len(classes)
    assert all((cls.__doc__ or "").endswith(("\n    ", ".")) for cls in classes)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([ToWorker, FromWorker, Share]))
def test_nonsense_is_refused_or_awaited_and_nothing_else(chunk: bytes, kinds: Any) -> None:
    for stream in (chunk, len(chunk).to_bytes(4, "little") + chunk):
        decoder: Decoder[Any] = Decoder(kinds, 100)
        try:
            decoder.feed(stream)
        except BrokenFrame:
            pass
        else:
            assert len(decoder._torn) < 104


@settings(deadline=None)
@given(from_worker, st.data())
def test_a_damaged_frame_is_refused_or_still_one(frame: Any, data: st.DataObject) -> None:
    stream = bytearray(encode(frame))
    at = data.draw(st.integers(4, len(stream) - 1))
    stream[at] = data.draw(st.integers(0, 255))
    decoder: Decoder[Any] = Decoder(FromWorker)
    try:
        (received,) = decoder.feed(stream)
    except BrokenFrame:
        return
    assert isinstance(received, get_args(FromWorker))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x95\xa8answered\x01\xc4\x01a\xa2\xff\xff\xc3",
        b"\x95\xa8answered\x01\xc4\x01a\xa2ab\xc3\xc3",
        b"\x96\xa8answered\x01\xc4\x01a\xa2ab\xc3" + b"\x91" * 100_000 + b"\xc0",
        b"\x92\xa5cance\x01",
        b"\x92\xa6cancel\x01",
        b"\x95\xa8answered\x01\xd9\x01a\xa2ab\xc3",
    ],
    ids=[
        "empty",
        "nil",
        "no utf-8",
        "trailing bytes",
        "deep nesting",
        "unknown tag",
        "the other direction",
        "a text for a body",
    ],
)
def test_a_frame_that_is_none_breaks_the_stream(body: bytes) -> None:
    stream = len(body).to_bytes(4, "little") + body
    for size in (1, len(stream)):
        decoder: Decoder[Any] = Decoder(FromWorker)
        with pytest.raises(BrokenFrame, match="a frame that is none"):
            for start in range(0, len(stream), size):
                decoder.feed(stream[start : start + size])


@pytest.mark.parametrize("split", [1, 2, 4, 5, 100])
def test_an_oversize_frame_breaks_the_stream_before_it_is_there(split: int) -> None:
    stream = (101).to_bytes(4, "little") + bytes(1)
    decoder: Decoder[Any] = Decoder(ToWorker, 100)
    with pytest.raises(BrokenFrame, match="a frame of 101 bytes is over the limit of 100"):
        for start in range(0, len(stream), split):
            decoder.feed(stream[start : start + split])


def test_what_cannot_be_sent_leaves_the_buffer_as_it_was() -> None:
    buffer = bytearray(b"before")
    with pytest.raises(BrokenFrame, match="over the limit"):
        encode_into(buffer, Answered(1, bytes(MAX_FRAME), "", last=True))
    with pytest.raises(BrokenFrame, match="surrogates"):
        encode_into(buffer, Answered(1, bytes(1000), "\udcff", last=True))
    assert buffer == b"before"


def test_an_error_without_utf_8_crosses_all_the_same() -> None:
    frame = failure_of(1, BadRequest("no \udcff here", errors=[Fault("$.\udcff", "\udcff")]))
    buffer = bytearray()
    encode_into(buffer, frame)
    (received,) = Decoder[Failed](Failed).feed(buffer)
    assert received.detail == "no ? here"
    assert received.errors == (Fault("$.?", "?"),)


def test_a_large_chunk_of_small_frames_and_a_large_frame_in_small_chunks_are_cheap() -> None:
    def seconds_for(count: int) -> tuple[float, float]:
        many = encode(Cancel(1)) * count
        large = encode(Answered(1, bytes(count * 10), "", last=True), cap=2**30)
        decoder: Decoder[Any] = Decoder(ToWorker | Answered, 2**30)
        start = time.perf_counter()
        assert len(decoder.feed(many)) == count
        middle = time.perf_counter()
        answers = []
        for at in range(0, len(large), 50):
            answers += decoder.feed(large[at : at + 50])
        assert len(answers) == 1
        return middle - start, time.perf_counter() - middle

    small = [min(times) for times in zip(*(seconds_for(2_000) for _ in range(3)), strict=True)]
    big = [min(times) for times in zip(*(seconds_for(64_000) for _ in range(3)), strict=True)]
    for one, other in zip(small, big, strict=True):
        assert other < one * 32 * 5


def every_error() -> list[type[AtomError]]:
    return sorted(all_errors().values(), key=lambda cls: cls.code)


@pytest.mark.parametrize("cls", every_error(), ids=lambda cls: cls.code)
def test_every_error_crosses_the_process(cls: type[AtomError]) -> None:
    error = cls("what happened")
    error.errors = (Fault("$.x", "is odd"),)
    error.retry_after = 1.5
    error.error_id = "abc"
    frame = msgspec.msgpack.decode(encode(failure_of(7, error))[4:], type=Failed)
    assert frame.job == 7
    other = error_of(frame)
    assert type(other) is cls
    for name in ("detail", "status", "errors", "retry_after", "error_id", "title"):
        assert getattr(other, name) == getattr(error, name)


def test_the_least_failure_keeps_its_defaults() -> None:
    other = error_of(failure_of(1, Overloaded()))
    assert (other.detail, other.errors, other.retry_after) == (Overloaded().title, (), None)
    assert isinstance(error_of(failure_of(1, MethodNotAllowed())), MethodNotAllowed)
    assert ArenaFull().status == 503


def test_an_error_that_is_unknown_here_is_the_plugins() -> None:
    error = error_of(Failed(1, "no_such_code", "what happened"))
    assert type(error) is PluginFailed
    assert error.detail == "what happened"


@pytest.mark.parametrize("wait", ["soon", float("nan"), -1, [1], 10**30])
def test_what_a_plugin_puts_into_an_error_crosses_or_is_left_out(wait: Any) -> None:
    error = BadRequest("no", errors=[Fault("$", cast("str", 7)), cast("Fault", "this")])
    error.retry_after = wait
    error.error_id = cast("str", 7)
    (received,) = Decoder[Failed](Failed).feed(encode(failure_of(1, error)))
    assert received == Failed(1, "bad_request", "no", (Fault("$", "7"),), None, "7")
    error.errors = cast("Any", 5)
    error.retry_after = 2
    (received,) = Decoder[Failed](Failed).feed(encode(failure_of(1, error)))
    assert (received.errors, received.retry_after) == ((), 2.0)


def test_the_words_of_an_error_always_fit_into_a_frame() -> None:
    faults = [Fault("\U0001f600" * 10_000, "\U0001f600" * 10_000)] * 1000
    error = Invalid("\U0001f600" * 2_000_000, errors=faults, error_id="x")
    assert len(encode(failure_of(1, error))) < MAX_FRAME
    assert error_of(failure_of(1, BadRequest("short"))).detail == "short"
