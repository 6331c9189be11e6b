"""When two requests are equal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve.engine.digests import CANONICAL, canonical, digest
from atomserve.engine.jobs import Payload

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # No lone surrogates: they are no text.
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abä"\\/'), inner),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.text('abcä"\\/ ', max_size=3), VALUES, max_size=5)


def turned(value: Any) -> Any:
    """Return ``value`` with the members of its objects the other way round."""
    if isinstance(value, dict):
        return {name: turned(each) for name, each in reversed(value.items())}
    return [turned(each) for each in value] if isinstance(value, list) else value


@given(DOCUMENTS, st.booleans())
def test_how_a_document_is_written_does_not_matter(found: dict[str, Any], ascii: bool) -> None:
    plain = canonical(json.dumps(found).encode())
    other = json.dumps(turned(found), ensure_ascii=ascii, indent=1).encode()
    assert plain is not None
    assert canonical(other) == plain
    assert json.loads(plain) == found


@given(DOCUMENTS, DOCUMENTS)
def test_other_documents_are_others(one: dict[str, Any], two: dict[str, Any]) -> None:
    first, second = canonical(json.dumps(one).encode()), canonical(json.dumps(two).encode())
    if one != two:
        assert first != second


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (b'{"a": 1}', b'{"a": 1.0}'),
        (b'{"a": 1.0}', b'{"a": 1.00}'),
        (b'{"a": 0.1}', b'{"a": 0.1000000000000000000000000000001}'),
        (b'{"a": "1"}', b'{"a": 1}'),
        (b'{"a": 1e2}', b'{"a": "1e2"}'),
        (b'{"a": [1, 2]}', b'{"a": [2, 1]}'),
    ],
)
def test_what_a_wrapper_might_tell_apart_is_not_equal(one: bytes, two: bytes) -> None:
    assert canonical(one) != canonical(two)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"1",
        b'{"a": NaN}',
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 1}',
        b'{"a/b": 1, "a\\/b": 1}',
        b'{"\xc3\xa4": 1, "\\u00e4": 1}',
        b"{" + b", ".join(b'"a%d": 1' % n for n in range(40)) + b', "a7": 2}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_the_codec_refuses_has_no_digest(body: bytes) -> None:
    if len(body) <= CANONICAL:
        assert digest(Payload(body=body), "1") is None
    assert canonical(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "a", "b": {"a": 1}}',
        b'{"a": {"a": {"a": 1}}}',
        b'{"a": "\\u0061"}',
        b"{" + b", ".join(b'"a%d": 1' % n for n in range(40)) + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_name_may_stand_twice_in_other_places(body: bytes) -> None:
    assert digest(Payload(body=body), "1") is not None


PLAIN: dict[str, Any] = {"form": "raw", "body": b"ab", "media_type": "image/png"}


@pytest.mark.parametrize(
    "other",
    [
        {"form": "msgpack"},
        {"body": b"aB"},
        {"media_type": "image/jpeg"},
        {"query": "a=1"},
        {"answer": "msgpack"},
        {"answer": "media"},
        {"answer_type": "image/webp"},
        {"body": b"b", "query": "a"},
    ],
)
def test_whatever_decides_the_answer_counts(other: dict[str, Any]) -> None:
    assert digest(Payload(**PLAIN), "1") != digest(Payload(**PLAIN | other), "1")


def test_a_models_versions_have_nothing_in_common() -> None:
    assert digest(Payload(**PLAIN), "1") != digest(Payload(**PLAIN), "2")


def test_a_body_counts_wherever_it_lies() -> None:
    class Block:
        data = memoryview(b"ab")

        def __len__(self) -> int:
            return 2

        def release(self) -> None:
            raise AssertionError("it is the caller's")

    bodies = [b"ab", bytearray(b"ab"), memoryview(b"ab"), Block()]
    assert len({digest(Payload(form="raw", body=body), "1") for body in bodies}) == 1


def test_a_long_document_counts_as_it_is_written() -> None:
    spaces = b" " * CANONICAL
    one, two = digest(Payload(body=b"{}" + spaces), "1"), digest(Payload(body=spaces + b"{}"), "1")
    assert one is not None
    assert one != two
