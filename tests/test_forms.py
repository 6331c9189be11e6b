"""Forms: parts are views of the body, and abuse ends early."""

import time
from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atomserve.codecs.forms import MAX_PARTS, split_form
from atomserve.errors import BadRequest

KIND = "multipart/form-data; boundary=B"


def part(head: str = 'Content-Disposition: form-data; name="a"', data: bytes = b"x") -> bytes:
    return b"--B\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


END = b"--B--\r\n"


def test_parts_are_views_of_the_body() -> None:
    body = bytearray(
        part('content-disposition: form-data; name="a"; filename="../x"\r\nContent-Type: Image/PNG')
        + part('Content-Disposition: form-data; name="ключ"', b"")
        + END
        + b"epilogue"
    )
    first, second = split_form(body, KIND)
    assert (first.name, first.media_type, first.is_file) == ("a", "image/png", True)
    assert first.data == b"x"
    assert first.data.obj is body
    assert first.data.readonly
    assert (second.name, bytes(second.data), second.is_file) == ("ключ", b"", False)


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([bytes, bytearray, memoryview]))
def test_data_of_any_bytes_is_kept(data: bytes, kind: type) -> None:
    tricky = data + b"\r\n--" + data + b"\r\n--C\r\r\n-" + data
    assume(b"\r\n--B" not in b"\r\n" + tricky)  # that would be the boundary
    (found,) = split_form(kind(part(data=tricky) + END), KIND)
    assert found.data == tricky


@pytest.mark.parametrize("boundary", ["B", '"B"'])
def test_a_boundary_may_be_quoted(boundary: str) -> None:
    assert len(split_form(part() + END, f"multipart/form-data; boundary={boundary}")) == 1


def test_every_cut_of_a_form_is_refused() -> None:
    whole = part() + part(data=b"y" * 20) + END[:-2]
    assert len(split_form(whole, KIND)) == 2
    for end in range(len(whole)):
        with pytest.raises(BadRequest, match="form"):
            split_form(whole[:end], KIND)


@pytest.mark.parametrize(
    "body",
    [
        part("Content-Disposition: form-data") + END,
        part("Content-Disposition: form-data; name*=utf-8''a") + END,
        part('Content-Disposition: attachment; name="a"') + END,
        part("X: y") + END,
        part("nonsense") + END,
        part(": x") + END,
        part('Content-Disposition: form-data; name="a"\r\nContent-Disposition: x') + END,
        part('Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64') + END,
        part("X: " + "y" * 10_000) + END,
        part("\r\n".join(f"X{i}: y" for i in range(100))) + END,
        b"--C\r\n" + part() + END,
        b"preamble" * 1000 + part() + END,
        b"",
        b"x",
    ],
)
def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="form"):
        split_form(body, KIND)


@pytest.mark.parametrize("kind", ["multipart/form-data", "", f"{KIND[:-1]}{'B' * 1000}"])
def test_a_boundary_is_needed_and_bounded(kind: str) -> None:
    with pytest.raises(BadRequest, match=r"boundary|Boundary"):
        split_form(part() + END, kind)


@pytest.mark.parametrize(
    "body",
    [
        part() * 100_000 + END,
        b"\r\n" * 1_000_000 + part() + END,
        part(data=b"\r\n--" * 1_000_000) + END,
        part(data=b"\r" * 4_000_000) + END,
        part() + END + b"\r\n--B" * 1_000_000,
        b"--B\r\n" + b"a" * 4_000_000,
    ],
    ids=["parts", "preamble", "almost boundaries", "returns", "epilogue", "header"],
)
def test_abuse_ends_within_a_second(body: bytes) -> None:
    start = time.process_time()
    with suppress(BadRequest):
        assert len(split_form(body, KIND)) <= MAX_PARTS
    assert time.process_time() - start < 1
