"""Athena's once requests and answers are, field for field, what its clients know."""

import base64
import binascii
import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomserve.codecs.athena.answers import Expected, TextOut, once_answer, once_error
from atomserve.codecs.athena.codes import CODES, OPERATIONS, OWN, Operation
from atomserve.codecs.athena.errors import (
    AppRefused,
    EnvelopeError,
    OutputRefused,
    PayloadError,
    WrapperRefused,
    failure,
    failure_of,
)
from atomserve.codecs.athena.nodes import (
    AUDIO,
    BEGIN,
    IMAGE,
    ONCE,
    OTHER,
    TEXT,
    VIDEO,
    Accept,
    Node,
    OnceRequest,
)
from atomserve.codecs.athena.requests import as_text, decode_request
from atomserve.errors import (
    ArenaFull,
    AtomError,
    BadAnswer,
    BadRequest,
    DeadlineExceeded,
    Draining,
    Fault,
    Invalid,
    ModelNotFound,
    NotReady,
    Overloaded,
    PluginFailed,
    TooLarge,
    WorkerLost,
    all_errors,
)

SID = "5d3dfd5a-7a04-4c5e-9b8b-7a0d6e9f4b1c"


def read(document: Any, **options: Any) -> OnceRequest:
    return decode_request(json.dumps(document).encode(), **options)


def payload(block: Any, **options: Any) -> Node:
    return read({"payload": {"k": block}}, **options).nodes[0]


def answer(*nodes: Node, accepts: dict[str, Accept] | None = None, **options: Any) -> Any:
    return json.loads(once_answer(nodes, accepts or {}, SID, Expected(**options)))


# Requests


def test_an_envelope_becomes_plain_data() -> None:
    request = read(
        {
            "header": {"app_id": "a1", "uid": "u", "status": 3, "res_id": None},
            "parameter": {
                "demo": {
                    "mode": "music",
                    "result": {"encoding": "utf8", "format": "json", "data_type": "text", "x": 1},
                }
            },
            "payload": {
                "img": {"encoding": "jpg", "image": "aGVsbG8=", "status": 3, "seq": 0},
                "txt": {"text": "d29ybGQ="},
            },
        }
    )
    assert request.header == {"app_id": "a1", "uid": "u", "status": "3", "res_id": ""}
    assert request.params == {"mode": "music"}
    assert request.accepts == {"result": Accept(TEXT, {"encoding": "utf8", "format": "json"})}
    desc = {"encoding": "jpg", "status": "3", "seq": "0"}
    assert request.nodes == [
        Node("img", b"hello", IMAGE, ONCE, desc),
        Node("txt", b"world", TEXT, ONCE, {}),
    ]
    assert request.status == ONCE


@pytest.mark.parametrize("name", ["app_id", "appid"])
def test_both_names_of_the_application_are_known(name: str) -> None:
    assert read({"header": {name: "a1"}}).app_id == "a1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1", "1"),
        (1, "1"),
        (1.0, "1"),
        (0.5, "0.5"),
        (-3, "-3"),
        (1e21, "1e21"),
        (True, "true"),
        (False, "false"),
        ("", ""),
    ],
)
def test_parameters_become_sane_text(value: Any, text: str) -> None:
    assert read({"parameter": {"s": {"p": value}}}).params == {"p": text}


def test_parameters_that_are_null_or_arrays_are_dropped() -> None:
    request = read({"parameter": {"s": {"a": None, "b": [1], "c": 1}, "t": None}})
    assert request.params == {"c": "1"}


def test_the_parameters_of_all_services_are_merged() -> None:
    request = read({"parameter": {"s": {"a": 1, "out": {}}, "t": {"b": 2}}})
    assert request.params == {"a": "1", "b": "2"}
    assert request.accepts == {"out": Accept(None, {})}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("text", TEXT), ("audio", AUDIO), ("image", IMAGE), ("video", VIDEO), ("other", OTHER)],
)
def test_the_key_of_the_data_names_their_type(name: str, kind: int) -> None:
    node = payload({name: "aGVsbG8="})
    assert (node.type, node.data) == (kind, b"hello")


def test_text_is_base64_unless_an_option_says_raw() -> None:
    assert payload({"text": "aGVsbG8="}, text="base64").data == b"hello"
    assert payload({"text": "héllo"}, text="raw").data == "héllo".encode()
    assert payload({"image": "aGVsbG8="}, text="raw").data == b"hello"


def test_base64_may_be_broken_into_lines() -> None:
    assert payload({"image": "aGVs\r\nbG8=\n"}).data == b"hello"


def test_json_inside_a_payload_is_written_back_with_a_newline() -> None:
    assert payload({"text": {"a": [1, True]}}).data == b'{"a":[1,true]}\n'
    assert payload({"text": []}).data == b"[]\n"


def test_a_payload_without_data_is_empty_text() -> None:
    assert payload({"encoding": "utf8"}) == Node("k", b"", TEXT, ONCE, {"encoding": "utf8"})
    assert payload(None) == Node("k", b"", TEXT, ONCE, {})


@pytest.mark.parametrize("status", [0, 1, 2, 3, "0", "3"])
def test_a_payloads_own_status_wins(status: Any) -> None:
    assert payload({"status": status}, status=BEGIN).status == int(status)


def test_a_payload_has_the_status_of_its_frame() -> None:
    request = read({"header": {"status": 2}, "payload": {"k": {}}}, status=BEGIN)
    assert (request.status, request.nodes[0].status) == (2, 2)


def test_the_wrapper_is_given_the_sid_and_the_headers_asked_for() -> None:
    request = read({"header": {"uid": "u", "lang": "x"}, "parameter": {"s": {"lang": "zh"}}})
    request.pass_headers(SID, ["uid", "lang", "absent"])
    assert request.params == {"sid": SID, "uid": "u", "lang": "zh"}


def test_no_two_requests_share_a_dict() -> None:
    first, second = payload({}), payload({})
    first.desc["x"] = "y"
    assert second.desc == {}
    assert Node("a").desc is not Node("b").desc


# Requests that are refused


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"3",
        b'{"header":[]}',
        b'{"header":"x"}',
        b'{"parameter":{"s":1}}',
        b'{"parameter":[]}',
        b'{"payload":{"k":"text"}}',
        b'{"payload":[1]}',
        b'{"header":{"a":1e400}}',
        b'{"header":{"a":' + b"9" * 5000 + b"}}",
        b'{"header":{"a":"\\ud800"}}',
        b"[" * 100_000,
        b'{"header":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b"{} {}",
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
def test_a_body_that_is_no_envelope_is_10000(body: bytes) -> None:
    with pytest.raises(EnvelopeError) as caught:
        decode_request(body)
    assert type(caught.value) is EnvelopeError
    told = failure_of(caught.value)
    assert (told.number, told.status, told.user_code) == (10000, 400, None)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"text": "%%%"}, "payload.k.text: illegal base64 data"),
        ({"image": "aGVsbG8"}, "payload.k.image: illegal base64 data"),
        ({"image": "aGVs bG8="}, "payload.k.image: illegal base64 data"),
        ({"image": "é"}, "payload.k.image: illegal base64 data"),
        ({"text": 3}, "payload.k.text: not support type of payload: number"),
        ({"text": True}, "payload.k.text: not support type of payload: boolean"),
        ({"text": None}, "payload.k.text: not support type of payload: null"),
        ({"text": "", "image": ""}, "payload.k: more than one of text, audio, image, video, other"),
        ({"status": 4}, "payload.k.status: service request status invalid: 4"),
        ({"status": "x"}, "payload.k.status: service request status invalid: x"),
        ({"status": -1}, "payload.k.status: service request status invalid: -1"),
        ({"status": [3]}, "payload.k.status: service request status invalid: [3]"),
    ],
)
def test_a_payload_that_cannot_be_read_is_10001(block: Any, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        payload(block)
    told = failure_of(caught.value)
    assert (told.number, told.status) == (10001, 400)
    assert told.message.startswith(words)


def test_a_headers_status_that_is_none_is_10001() -> None:
    with pytest.raises(PayloadError, match=r"header.status: service request status invalid: 9"):
        read({"header": {"status": 9}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
names = st.sampled_from(["text", "image", "audio", "status", "seq", "encoding", "app_id", "x"])
blocks = st.dictionaries(names, json_values, max_size=4)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "header": blocks | json_values,
        "parameter": st.dictionaries(st.text(), blocks | json_values, max_size=2) | json_values,
        "payload": st.dictionaries(st.text(), blocks | json_values, max_size=2) | json_values,
    },
)


@settings(deadline=None)
@given(envelopes | json_values, st.sampled_from(["base64", "raw"]))
def test_any_json_is_read_or_refused_with_a_code(document: Any, text: Any) -> None:
    try:
        request = read(document, text=text)
    except EnvelopeError as exc:
        assert failure_of(exc).number in (10000, 10001)
        assert json.loads(once_error(failure_of(exc), SID)[1])["payload"] is None
    else:
        assert all(type(value) is str for value in request.params.values())
        assert all(type(value) is str for value in request.header.values())
        assert all(type(node.data) is bytes and node.status in range(4) for node in request.nodes)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(EnvelopeError):
        decode_request(body)


@settings(deadline=None)
@given(st.binary(), st.sampled_from(["text", "image", "audio", "video", "other"]))
def test_data_arrive_as_they_were_sent(data: bytes, name: str) -> None:
    assert payload({name: base64.b64encode(data).decode()}).data == data


@settings(deadline=None)
@given(st.text("AQgw+/=-_ \r\n\xe9", max_size=12))
def test_base64_is_read_as_strictly_as_upstream_does(text: str) -> None:
    plain = text.replace("\r", "").replace("\n", "")
    try:
        expected = binascii.a2b_base64(plain, strict_mode=True)
    except ValueError:
        with pytest.raises(PayloadError):
            payload({"image": text})
    else:
        assert payload({"image": text}).data == expected


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63))
def test_a_number_as_text_is_the_same_number(value: float) -> None:
    assert type(value)(as_text(value)) == value


# Answers

JSON_TEXT = {"encoding": "utf8", "compress": "raw", "format": "json"}


def test_a_success_is_the_documented_answer() -> None:
    said = {"encoding": "utf8", "compress": "raw", "format": "plain"}
    assert answer(Node("result", b"raw text"), accepts={"result": Accept(TEXT, said)}) == {
        "header": {"code": 0, "status": 3, "sid": SID},
        "payload": {
            "result": {
                "encoding": "utf8",
                "compress": "raw",
                "format": "plain",
                "seq": "0",
                "status": "3",
                "text": "raw text",
            }
        },
    }


def test_media_are_base64_and_have_what_the_client_said_of_them() -> None:
    accepts = {"pic": Accept(IMAGE, {"encoding": "jpg"})}
    assert answer(Node("pic", b"hello", IMAGE), accepts=accepts)["payload"] == {
        "pic": {"encoding": "jpg", "seq": "0", "status": "3", "image": "aGVsbG8="}
    }


@pytest.mark.parametrize(
    ("kind", "name"), [(AUDIO, "audio"), (VIDEO, "video"), (OTHER, "other"), (77, "other")]
)
def test_every_type_has_its_name(kind: int, name: str) -> None:
    assert answer(Node("k", memoryview(b"hello"), kind))["payload"]["k"] == {
        "seq": "0",
        "status": "3",
        name: "aGVsbG8=",
    }


@pytest.mark.parametrize(
    ("text", "written"),
    [("raw", '{"a": 1}'), ("base64", "eyJhIjogMX0="), ("gateway", {"a": 1})],
)
def test_text_is_written_as_the_option_says(text: TextOut, written: Any) -> None:
    accepts = {"k": Accept(TEXT, JSON_TEXT)}
    block = answer(Node("k", b'{"a": 1}'), accepts=accepts, text=text)["payload"]["k"]
    assert block["text"] == written


@pytest.mark.parametrize("data", [b"not json", b"\xff", b"[" * 100_000, b""])
def test_what_is_no_json_is_not_embedded(data: bytes) -> None:
    accepts = {"k": Accept(TEXT, JSON_TEXT)}
    block = answer(Node("k", data), accepts=accepts, text="gateway")["payload"]["k"]
    assert block["text"] == base64.b64encode(data).decode()


def test_the_gateways_plain_text_is_base64() -> None:
    assert answer(Node("k", b"hello"), text="gateway")["payload"]["k"]["text"] == "aGVsbG8="


def test_raw_text_that_is_not_utf8_is_mended() -> None:
    assert answer(Node("k", b"a\xffb"))["payload"]["k"]["text"] == "a�b"


def test_what_the_client_does_not_describe_is_described_by_the_wrapper() -> None:
    derived = {"k": Accept(TEXT, JSON_TEXT)}
    assert answer(Node("k", b"{}"), derived=derived)["payload"]["k"]["format"] == "json"
    accepts = {"k": Accept(TEXT, {"format": "xml"})}
    block = answer(Node("k", b"{}"), accepts=accepts, derived=derived)["payload"]["k"]
    assert block["format"] == "xml"
    assert "encoding" not in block


def refusal(*nodes: Node, accepts: dict[str, Accept] | None = None, **options: Any) -> Any:
    with pytest.raises(OutputRefused) as caught:
        answer(*nodes, accepts=accepts, **options)
    return json.loads(once_error(failure_of(caught.value), SID)[1])["header"]


@pytest.mark.parametrize(
    "accepts", [{}, {"other": Accept(TEXT)}, {"k": Accept(IMAGE)}], ids=["none", "other", "type"]
)
def test_a_strict_client_gets_only_what_it_named(accepts: dict[str, Accept]) -> None:
    derived = {"k": Accept(TEXT, JSON_TEXT)}
    assert refusal(Node("k", b"x"), accepts=accepts, derived=derived, strict=True) == {
        "code": 10106,
        "sid": SID,
        "message": "wrapper output data invalid(key or type)",
    }


def test_a_strict_client_gets_what_it_named() -> None:
    for accept in (Accept(TEXT, JSON_TEXT), Accept(None, JSON_TEXT)):
        found = answer(Node("k", b"{}"), accepts={"k": accept}, strict=True)
        assert found["payload"]["k"]["text"] == "{}"


@pytest.mark.parametrize("strict", [True, False])
def test_no_output_is_10106(strict: bool) -> None:
    assert refusal(strict=strict) == {
        "code": 10106,
        "sid": SID,
        "message": "wrapper output data is nil ",
    }


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.binary(), min_size=1, max_size=4))
def test_any_output_is_written(outputs: dict[str, bytes]) -> None:
    found = answer(*[Node(key, data, IMAGE) for key, data in outputs.items()])["payload"]
    assert {key: base64.b64decode(block["image"]) for key, block in found.items()} == outputs


# Errors

EACH: list[tuple[AtomError, int, int, str]] = [
    (EnvelopeError("no"), 10000, 400, "no"),
    (PayloadError("no"), 10001, 400, "no"),
    (AppRefused("no"), 10313, 403, "no"),
    (BadRequest("no"), 10000, 400, "no"),
    (Invalid("no"), 10163, 422, "parameter schema validate error: no"),
    (ModelNotFound("no"), 10404, 404, "no"),
    (TooLarge("no"), 10009, 413, "no"),
    (Overloaded("no"), 10110, 429, "service license not enough"),
    (ArenaFull("no"), 10110, 503, "service license not enough"),
    (NotReady("no"), 10002, 503, "no"),
    (Draining("no"), 10002, 503, "no"),
    (DeadlineExceeded("no"), 10102, 504, "service exec once request timeout"),
    (WorkerLost("no"), 10109, 503, "no"),
    (BadAnswer("no"), 10106, 500, "no"),
    (AtomError("no"), 10002, 500, "no"),
]


@pytest.mark.parametrize(
    ("error", "number", "status", "message"), EACH, ids=[each[0].code for each in EACH]
)
def test_every_error_is_the_documented_document(
    error: AtomError, number: int, status: int, message: str
) -> None:
    document = {"header": {"code": number, "sid": SID, "message": message}, "payload": None}
    for compatible, expected in ((True, 500), (False, status)):
        sent, body = once_error(failure_of(error), SID, compatible=compatible)
        assert (sent, json.loads(body)) == (expected, document)


@pytest.mark.parametrize(("operation", "number"), OPERATIONS.items())
def test_a_wrappers_own_code_is_in_the_message_and_beside_it(
    operation: Operation, number: int
) -> None:
    error = WrapperRefused.of(operation, 1234, "no such song")
    assert json.loads(once_error(failure_of(error), SID)[1]) == {
        "header": {
            "code": number,
            "sid": SID,
            "message": "no such song;code=1234",
            "user_code": 1234,
        },
        "payload": None,
    }


def test_an_exception_is_the_users_code_minus_one() -> None:
    told = failure_of(PluginFailed("division by zero"), "write")
    assert (told.number, told.user_code) == (10907, -1)
    assert told.message == "division by zero;code=-1"


def test_the_users_code_survives_what_a_process_boundary_keeps() -> None:
    error = WrapperRefused.of("create", -7, "busy")
    other = all_errors()[error.code](error.detail)
    other.errors = msgspec.json.decode(msgspec.json.encode(error.errors), type=tuple[Fault, ...])
    assert failure_of(other) == failure_of(error)


@pytest.mark.parametrize(
    "faults", [[], [Fault("create", "x")], [Fault("create", "9" * 5000)], [Fault("nope", "")]]
)
def test_a_refusal_that_came_without_its_code_is_still_told(faults: list[Fault]) -> None:
    told = failure_of(WrapperRefused("busy", errors=faults))
    assert (told.number, told.message, told.user_code) == (10909, "busy;code=-1", -1)


def test_an_unknown_operation_is_the_callers() -> None:
    told = failure_of(WrapperRefused("busy;code=3", errors=[Fault("dance", "3")]), "read")
    assert (told.number, told.message, told.user_code) == (10908, "busy;code=3", 3)


def test_words_without_utf8_are_mended() -> None:
    told = failure_of(WrapperRefused.of("exec", 5, "\ud800 is odd"))
    assert json.loads(once_error(told, SID)[1])["header"]["message"] == "? is odd;code=5"


def test_retry_after_is_kept() -> None:
    assert failure_of(Overloaded(retry_after=2.5)).retry_after == 2.5


def test_every_error_of_ours_has_a_code_of_athena() -> None:
    assert {failure_of(cls("x")).number for cls in all_errors().values()} <= set(CODES)
    assert set(OWN) <= set(all_errors())


@pytest.mark.parametrize(("status", "number"), [(402, 10000), (501, 10002)])
def test_an_error_without_a_code_of_its_own_is_told_by_its_status(status: int, number: int) -> None:
    error: Any = AtomError("x")
    error.code, error.status = "unheard_of", status
    assert failure_of(error).number == number


@pytest.mark.parametrize("number", CODES)
def test_every_code_has_a_meaningful_status_and_words(number: int) -> None:
    told = failure(number)
    assert 400 <= told.status < 600
    assert told.message
    assert failure(number, "other").message == "other"
