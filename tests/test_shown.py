"""What a log shows of values: enough to recognise them, and no secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomserve.telemetry.secrets import MASK
from atomserve.telemetry.shown import cut, shown_call, shown_headers

SECRET = "the-secret-0123"


def test_texts_bytes_and_lists_are_cut_wherever_they_stand() -> None:
    value = {"a": "x" * 300, "b": [b"y" * 50] * 20, "c": (1, None, 2.5)}
    assert cut(value) == {"a": "x" * 200, "b": [b"y" * 20] * 10, "c": [1, None, 2.5]}
    assert cut(memoryview(b"z" * 99)) == b"z" * 20


def test_what_is_nested_without_end_is_cut_too() -> None:
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    assert str(cut(value)).count("[") < 10


@pytest.mark.parametrize(
    "name",
    ["password", "Authorization", "x-api-key", "api_key", "access_token", "Set-Cookie", "secret"],
)
def test_secrets_are_masked_as_parameters_and_as_headers(name: str) -> None:
    assert cut({"deep": [{name: SECRET}]}) == {"deep": [{name: MASK}]}
    assert shown_headers([(name, SECRET)]) == {name: MASK}


def test_what_only_sounds_like_a_secret_is_shown() -> None:
    assert cut({"max_tokens": 5, "keyboard": "qwerty"}) == {"max_tokens": 5, "keyboard": "qwerty"}
    assert shown_headers([("Accept", "a"), ("X-Request-ID", "b")]) == {
        "Accept": "a",
        "X-Request-ID": "b",
    }


def test_a_call_is_shown_without_what_it_proves_itself_by() -> None:
    shown = shown_call(
        f"http://me:{SECRET}@host:80/path?size=2&api_key={SECRET}",
        {
            "headers": {"Authorization": SECRET, "Accept": "a"},
            "cookies": {"session": SECRET},
            "auth": ("me", SECRET),
            "cert": None,
            "params": {"token": SECRET, "n": 1},
            "json": {"text": "t" * 300},
            "timeout": 30,
        },
    )
    assert SECRET not in str(shown)
    assert "size=2" in shown["url"]
    assert shown["headers"] == {"Authorization": MASK, "Accept": "a"}
    assert (shown["json"], shown["cert"]) == ({"text": "t" * 200}, None)
    assert shown["timeout"] == 30


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=400) | st.binary(max_size=99),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=30,
)


@settings(max_examples=50)
@given(JSON)
def test_nothing_that_is_shown_is_long(value: Any) -> None:
    def check(shown: Any) -> None:
        if isinstance(shown, dict):
            for each in shown.values():
                check(each)
        elif isinstance(shown, list):
            assert len(shown) <= 10
            for each in shown:
                check(each)
        elif isinstance(shown, str | bytes):
            assert len(shown) <= 200

    check(cut(value))
