"""What AIGES wrappers declare becomes documents, and their results are checked."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from atomserve.compat.aiges.checks import check_resp
from atomserve.compat.aiges.declared import declared, key_of
from atomserve.compat.aiges.exchanges import sample_params, sample_request
from atomserve.compat.aiges.legacy_schema import legacy_schema
from atomserve.compat.aiges.schema import open_schema, schema_v2
from atomserve.compat.aiges.shim.aiges.dto import Response, ResponseData
from atomserve.compat.aiges.shim.aiges.sdk import (
    AudioBodyField,
    BooleanParamField,
    ImageBodyField,
    IntegerParamField,
    JsonBodyField,
    NumberParamField,
    StringBodyField,
    StringParamField,
    VideoBodyField,
    WrapperBase,
)

LEGACY = Path(__file__).with_name("aiges_legacy_schema.json")


class UserRequest:
    params1 = StringParamField(key="mode", enums=["music", "humming"], value="humming")
    params2 = StringParamField(key="lang", maxLength=44, required=True, value="zh")
    params3 = NumberParamField(key="speed", minimum=0, maximum=10, value=5)
    params4 = IntegerParamField(key="topk", minimum=1, maximum=9, value=3)
    params5 = BooleanParamField(key="vad", default=True)
    input1 = ImageBodyField(key="img", path="/nonexistent.png")
    input2 = StringBodyField(key="txt", value=b"hello")
    input3 = AudioBodyField(key="wav", path="/nonexistent.wav")
    note = b"a plain value is no field"


class UserResponse:
    accept1 = StringBodyField(key="result")
    accept2 = ImageBodyField(key="pic")


class Wrapper(WrapperBase):
    serviceId = "demo"
    version = "v1"
    requestCls = UserRequest()
    responseCls = UserResponse()


def test_the_legacy_document_is_the_sdks() -> None:
    expected = json.loads(LEGACY.read_text())
    assert legacy_schema(declared(Wrapper)) == expected
    assert json.loads(Wrapper().schema()) == expected


def test_attributes_of_the_class_are_in_the_legacy_document() -> None:
    class Own(Wrapper):
        call, sub, route, call_type = "other", "mine", "/v2/x", 1

    meta = legacy_schema(declared(Own))["meta"]
    assert [meta[name] for name in ("call", "sub", "route", "call_type")] == [
        "other",
        "mine",
        "/v2/x",
        1,
    ]


def test_fields_are_found_through_base_classes() -> None:
    class MoreRequest(UserRequest):
        input4 = StringBodyField(key="more")
        input2 = StringBodyField(key="instead")

    class Middle(Wrapper):
        requestCls = MoreRequest()

    class Leaf(Middle):
        pass

    inputs = [key_of(field) for field in declared(Leaf).fields.inputs]
    assert inputs == ["img", "instead", "wav", "more"]


def test_fields_are_told_apart_by_type_and_not_by_name() -> None:
    class Request:
        input1 = StringParamField(key=b"number")
        ctrl = JsonBodyField(key="ctrl")

    class Odd(WrapperBase):
        requestCls = Request  # a class, where an instance is usual

    fields = declared(Odd(), name="odd").fields
    assert [key_of(field) for field in fields.inputs] == ["ctrl"]
    assert [key_of(field) for field in fields.params] == ["number"]


def test_the_second_document_keeps_what_fields_say() -> None:
    document = schema_v2(declared(Wrapper))
    properties = document["schemainput"]["properties"]
    service = properties["parameter"]["properties"]["demo"]
    assert service["required"] == ["lang"]
    found = service["properties"]
    assert found["mode"] == {"type": "string", "enum": ["music", "humming"], "default": "humming"}
    assert found["lang"] == {"type": "string", "minLength": 0, "maxLength": 44, "default": "zh"}
    assert found["speed"] == {"type": "number", "minimum": 0, "maximum": 10, "default": 5}
    assert found["topk"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 3}
    assert found["vad"] == {"type": "boolean", "default": True}
    assert found["result"]["properties"]["encoding"]["default"] == "utf8"
    assert properties["payload"]["properties"]["txt"]["required"] == ["text"]
    assert set(document["schemaoutput"]["properties"]["payload"]["properties"]) == {"result", "pic"}


def test_the_second_document_is_json_schema_and_judges_requests() -> None:
    schema = schema_v2(declared(Wrapper))["schemainput"]
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    request: dict[str, Any] = {
        "header": {"app_id": "a", "status": 3},
        "parameter": {"demo": {"mode": "music", "lang": "en", "topk": 9}},
        "payload": {"txt": {"text": "aGk=", "status": 3}},
    }
    assert judge.is_valid(request)
    for wrong in ({"topk": 10}, {"topk": 1.5}, {"mode": "x"}, {"speed": -1}, {"lang": "x" * 45}):
        parameter = {"demo": {"lang": "en"} | wrong}
        assert not judge.is_valid(request | {"parameter": parameter}), wrong
    assert not judge.is_valid(request | {"parameter": {"demo": {}}})
    assert not judge.is_valid(request | {"payload": {"txt": {"status": 3}}})


def test_a_default_that_a_field_itself_forbids_is_left_out() -> None:
    class Request:
        a = StringParamField(key="a", enums=["x"], value="y")
        b = IntegerParamField(key="b", minimum=1, maximum=9)
        c = StringParamField(key="c")
        d = NumberParamField(key="d", value="text")

    class Odd(WrapperBase):
        serviceId = "odd"
        requestCls = Request()

    document = schema_v2(declared(Odd))["schemainput"]["properties"]["parameter"]
    assert not any(
        "default" in field for field in document["properties"]["odd"]["properties"].values()
    )


def test_the_platforms_word_for_default_replaces_the_keyword_alone() -> None:
    class Request:
        a = StringParamField(key="default", value="x")

    class Odd(WrapperBase):
        serviceId = "odd"
        requestCls = Request()

    document = schema_v2(declared(Odd), aipaas=True)
    service = document["schemainput"]["properties"]["parameter"]["properties"]["odd"]
    assert service["properties"]["default"]["defaultVal"] == "x"
    text = json.loads(Odd(legacy=False).schema())
    assert text == document


@pytest.mark.parametrize(
    "document", [open_schema("free"), schema_v2(declared(WrapperBase, name="free"))]
)
def test_a_wrapper_without_fields_takes_anything(document: dict[str, Any]) -> None:
    judge = jsonschema.Draft202012Validator(document["schemainput"])
    assert judge.is_valid({"payload": {"any": {"text": "eA==", "status": 3, "x": 1}}})
    assert judge.is_valid({"parameter": {"free": {"whatever": 1}}})
    assert not judge.is_valid({"payload": {"any": {"status": 3}}})
    assert document["meta"]["serviceId"] == "free"


def test_a_wrapper_without_fields_has_a_legacy_document_too() -> None:
    document = legacy_schema(declared(WrapperBase(), name="free"))
    assert document["meta"]["free"] == {"input": {}, "accept": {}}


def test_films_are_described() -> None:
    class Request:
        a = VideoBodyField(key="film", path="/nonexistent.mp4")

    class Cinema(WrapperBase):
        serviceId = "cinema"
        requestCls = Request()

    for document in (legacy_schema(declared(Cinema)), schema_v2(declared(Cinema))):
        payload = document["schemainput"]["properties"]["payload"]["properties"]["film"]
        assert payload["properties"]["video"]["type"] == "string"


# Test values.


def test_test_values_are_what_production_would_send(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"png")

    class Request:
        params1 = NumberParamField(key="half", value=0.5)
        params2 = BooleanParamField(key="flag", default=True)
        params3 = StringParamField(key="raw", value=b"bytes")
        input1 = ImageBodyField(key="img", path=str(picture))
        input2 = JsonBodyField(key="json", value={"a": "é"})
        input3 = StringBodyField(key="str", value="text")
        input4 = AudioBodyField(key="none", path="/nonexistent.wav")
        input5 = StringBodyField(key="b64", value=b"x", need_base64=True)
        input6 = JsonBodyField(key="written", value='{"b": 1}')

    class Own(WrapperBase):
        requestCls = Request()

    own = declared(Own, name="own")
    params = sample_params(own)
    assert params.pop("sid")
    assert params == {"half": "0.5", "flag": "true", "raw": "bytes"}
    request = sample_request(own)
    assert [(node.key, node.data, node.type) for node in request.list] == [
        ("img", b"png", 2),
        ("json", '{"a": "é"}'.encode(), 0),
        ("str", b"text", 0),
        ("none", b"", 1),
        ("b64", b"eA==", 0),
        ("written", b'{"b": 1}', 0),
    ]


# The nine rules.

ACCEPTS = declared(Wrapper).fields.accepts


def piece(**changes: Any) -> ResponseData:
    made = ResponseData("result", b"abc")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("response", "rules"),
    [
        (Response([piece()]), []),
        (Response([piece(data=memoryview(b"abc"))]), []),
        ("no response", [1]),
        (None, [1]),
        (Response(), [2]),
        (Response([ResponseData()]), [2]),
        (Response(error_code=5), []),
        (Response([ResponseData()], 5), []),
        (Response([piece(data="text")]), [4]),
        (Response([piece(data=bytearray(b"x"))]), [4]),
        (Response([piece(len=9)]), [5]),
        (Response([piece(), piece()]), [6]),
        (Response([piece(status=2)]), [7]),
        (Response([piece(key="other")]), [8]),
        (Response([piece(type=2)]), [9]),
        (Response([piece(status=0, type=7, len=1)]), [5, 7, 9]),
    ],
)
def test_each_rule_is_checked(response: Any, rules: list[int]) -> None:
    assert [finding.rule for finding in check_resp(response, ACCEPTS)] == rules
    assert Wrapper().check_resp(response) is (not rules)


def test_what_is_served_all_the_same_is_marked() -> None:
    found = check_resp(Response([piece(data="text", len=1)]), ACCEPTS)
    assert [(finding.rule, finding.tolerated) for finding in found] == [(4, True), (5, True)]
    assert str(found[0]) == "rule 4: result: the data should be bytes, not str"


def test_what_is_not_declared_is_not_judged() -> None:
    assert check_resp(Response([piece(key="any", type=9)])) == []
