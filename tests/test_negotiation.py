"""Headers and signatures choose forms; nothing is guessed from content."""

from typing import Annotated, Any

import numpy as np
import pytest

from atomserve import Audio, Blob, Image, Tensor, Text, Video, Wrapper
from atomserve.codecs.negotiation import answer_form, request_form, stream_form
from atomserve.errors import BadRequest, NotAcceptable, UnsupportedMedia
from atomserve.signature import Signature, read_contract

Numbers = Annotated[np.ndarray, Tensor("float32")]


def signature(takes: Any, gives: Any = int) -> Signature:
    class Model(Wrapper):
        def predict(self, x: Any, n: int = 1) -> Any: ...

    Model.predict.__annotations__.update({"x": takes, "return": gives})
    return read_contract(Model).signature


SIGNATURES = {kind: signature(kind) for kind in (int, Text, Image, Audio, Video, Blob, Numbers)}


@pytest.mark.parametrize("takes", SIGNATURES)
@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("application/json", "json"),
        ("Application/JSON ; charset=UTF-8", "json"),
        ('application/json; charset="utf8"', "json"),
        ("application/vnd.api+json", "json"),
        ("application/msgpack", "msgpack"),
        ("application/x-msgpack", "msgpack"),
        ("application/vnd.msgpack", "msgpack"),
        ("multipart/form-data; boundary=x", "multipart"),
        ('Multipart/Form-Data; Boundary="x y"', "multipart"),
    ],
)
def test_every_model_takes_documents_and_forms(takes: Any, content_type: str, form: str) -> None:
    assert request_form(SIGNATURES[takes], content_type) == form


@pytest.mark.parametrize(
    ("takes", "content_type", "form"),
    [
        (Image, "image/png", "raw"),
        (Image, "image/x-anything", "raw"),
        (Image, "application/octet-stream", "raw"),
        (Image, "application/x-www-form-urlencoded", "raw"),
        (Image, "", "raw"),
        (Image | None, "image/png", "raw"),
        (Audio, "audio/flac", "raw"),
        (Video, "video/webm", "raw"),
        (Blob, "application/octet-stream", "raw"),
        (Numbers, "application/x-npy", "npy"),
        (Numbers, "application/octet-stream", "raw"),
    ],
)
def test_the_single_binary_input_may_be_the_body(takes: Any, content_type: str, form: str) -> None:
    assert request_form(signature(takes), content_type) == form


@pytest.mark.parametrize(
    ("takes", "content_type"),
    [
        (int, "image/png"),
        (int, "application/octet-stream"),
        (int, "application/x-www-form-urlencoded"),
        (int, ""),
        (int, "text/plain"),
        (Text, "text/plain"),
        (Image, "audio/wav"),
        (Image, "application/x-npy"),
        (Image, "text/plain"),
        (Blob, "image/png"),
        (Numbers, "image/png"),
        (list[Image], "image/png"),
        (int, "application/json; charset=latin-1"),
        (int, "application/json; charset=utf-16"),
        (int, "json"),
        (int, ";"),
        (int, "x" * 5000),
    ],
)
def test_what_a_model_does_not_take_is_unsupported(takes: Any, content_type: str) -> None:
    with pytest.raises(UnsupportedMedia, match=r"takes application/json|expected utf-8") as caught:
        request_form(signature(takes), content_type)
    assert len(str(caught.value)) < 300


def test_a_form_without_a_boundary_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="boundary"):
        request_form(SIGNATURES[int], "multipart/form-data")


def test_no_body_and_no_type_is_a_query_alone() -> None:
    for each in SIGNATURES.values():
        assert request_form(each, "", empty=True) == "raw"
    with pytest.raises(UnsupportedMedia):
        request_form(SIGNATURES[int], "text/plain", empty=True)


@pytest.mark.parametrize(
    ("gives", "accept", "chosen"),
    [
        (int, "", ("json", "")),
        (int, "*/*", ("json", "")),
        (int, "application/*", ("json", "")),
        (int, "application/msgpack", ("msgpack", "")),
        (int, "application/x-msgpack", ("msgpack", "")),
        (int, "application/msgpack, */*;q=0.1", ("msgpack", "")),
        (int, "text/html, application/json;q=0.9", ("json", "")),
        (Image, "", ("media", "")),
        (Image, "*/*", ("media", "")),
        (Image, "image/*", ("media", "")),
        (Image, "image/jpeg", ("media", "image/jpeg")),
        (Image, "IMAGE/WebP;q=0.5, image/png;q=0.4", ("media", "image/webp")),
        (Image, "application/json", ("json", "")),
        (Image, "image/png;q=0, */*", ("media", "")),
        (Image, "image/*;q=0, */*", ("json", "")),
        (Image, "image/avif, image/webp, */*;q=0.8", ("media", "image/webp")),
        (Audio, "audio/ogg", ("media", "audio/ogg")),
        (Blob, "", ("media", "")),
        (Numbers, "", ("npy", "")),
        (Numbers, "application/x-npy", ("npy", "application/x-npy")),
        (Numbers, "application/json", ("json", "")),
        (Numbers, "application/json, application/msgpack", ("json", "")),
        (list[Image], "*/*", ("json", "")),
        (int, "application/json;q=nonsense, application/msgpack", ("msgpack", "")),
    ],
)
def test_accept_chooses_the_answer(gives: Any, accept: str, chosen: tuple[str, str]) -> None:
    assert answer_form(signature(int, gives), accept) == chosen


@pytest.mark.parametrize(
    ("gives", "accept"),
    [
        (int, "text/html"),
        (int, "image/*"),
        (int, "application/x-npy"),
        (int, "*/*;q=0"),
        (int, "application/json;q=0"),
        (Image, "audio/wav"),
        (Image, "image/gif"),
        (int, "text/html," * 1000),
    ],
)
def test_what_there_is_not_is_not_acceptable(gives: Any, accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"there is .*application/json"):
        answer_form(signature(int, gives), accept)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "sse"),
        ("*/*", "sse"),
        ("text/event-stream", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("application/x-ndjson, text/event-stream", "sse"),
        ("application/x-ndjson, text/event-stream;q=0.5", "ndjson"),
        ("application/*", "ndjson"),
    ],
)
def test_accept_chooses_how_a_stream_is_written(accept: str, form: str) -> None:
    assert stream_form(accept) == form


def test_a_stream_in_json_alone_is_not_acceptable() -> None:
    with pytest.raises(NotAcceptable, match="text/event-stream"):
        stream_form("application/json")


def test_the_items_of_a_stream_are_json() -> None:
    class Counts(Wrapper):
        def predict(self, n: int) -> Any: ...

    from collections.abc import Iterator

    Counts.predict.__annotations__["return"] = Iterator[Image]
    assert answer_form(read_contract(Counts).signature, "text/event-stream") == ("json", "")
