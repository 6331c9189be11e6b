"""What a wrapper's fields become for the native surface, and what they say of parameters."""

from typing import Any

import msgspec
import pytest

from atomserve.codecs.athena.service import Service
from atomserve.compat.aiges.asked import Reader
from atomserve.compat.aiges.contract import describe
from atomserve.compat.aiges.declared import declared
from atomserve.compat.aiges.parameters import Parameters
from atomserve.compat.aiges.shim.aiges.sdk import (
    BooleanParamField,
    ImageBodyField,
    IntegerParamField,
    JsonBodyField,
    NumberParamField,
    StringBodyField,
    StringParamField,
)
from atomserve.engine.jobs import Payload
from atomserve.errors import Invalid


class Request:
    input1 = StringBodyField(key=b"text", value=b"x")
    input2 = ImageBodyField(key="my-image", path="")
    input3 = JsonBodyField(key="class", value={})
    params1 = StringParamField(key="text", maxLength=3)
    params2 = NumberParamField(key="speed", minimum=0, maximum=2)
    params3 = IntegerParamField(key="top", enums=[1, 2])
    params4 = BooleanParamField(key="on", default=True)
    params5 = StringParamField(key="must", required=True)


class Wrapper:
    serviceId = "named"
    requestCls = Request()


def asked(body: dict[str, Any], *, wrapper: Any = Wrapper, strict: bool = False) -> Any:
    own = declared(wrapper, name="unnamed")
    parameters = Parameters(own.fields.params, "strict" if strict else "off")
    reader = Reader(describe(own, "m", once=True, stream=False), Service(path="/"), parameters)
    return reader.once(Payload(body=msgspec.json.encode(body)))


def test_each_key_becomes_an_input_of_its_own() -> None:
    found = describe(declared(Wrapper), "m", once=True, stream=False)
    names = [field.name for field in found.contract.signature.inputs]
    assert names == ["text", "my_image", "_class", "text_", "speed", "top", "on", "must"]
    assert [field.required for field in found.contract.signature.inputs[:4]] == [True] * 3 + [False]


def test_inputs_arrive_under_their_keys_as_bytes_and_parameters_as_text() -> None:
    body = {"text": "é", "my_image": b"\x00\xff", "_class": {"a": 1}, "text_": "abc", "speed": 1.5}
    found = asked({**body, "on": True, "must": "x"})
    data = {node.key: bytes(node.get_data()) for node in found.request.list}
    assert data == {"text": "é".encode(), "my-image": b"\x00\xff", "class": b'{"a":1}'}
    assert [node.type for node in found.request.list] == [0, 2, 0]
    sid = found.params.pop("sid")
    assert found.params == {"text": "abc", "speed": "1.5", "on": "true", "must": "x"}
    assert sid == found.sid


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"text_": "abcd"}, "parameter.text"),
        ({"speed": 3}, "parameter.speed"),
        ({"speed": "fast"}, "parameter.speed"),
        ({"speed": "nan"}, "parameter.speed"),
        ({"top": 3}, "parameter.top"),
        ({"on": "maybe"}, "parameter.on"),
        ({"must": None}, "parameter.must"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_where_they_are_strict(
    params: dict[str, Any], path: str
) -> None:
    body = {"text": "", "my_image": b"", "_class": 1, "must": "x", **params}
    asked(body)
    with pytest.raises(Invalid) as refused:
        asked(body, strict=True)
    assert [fault.path for fault in refused.value.errors] == [path]


def test_a_complaint_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    parameters = Parameters(declared(Wrapper).fields.params, "warn")
    for _ in range(3):
        parameters.check({"must": "x", "speed": "9"})
    assert [record.getMessage() for record in caplog.records] == [
        "a request does not fit the fields: parameter.speed: expected at most 2"
    ]


def test_a_wrapper_without_fields_takes_text_and_blocks() -> None:
    class Open:
        pass

    payload = {"a": "text", "b": {"image": "AP8=", "status": 1}, "c": {"text": {"deep": 1}}}
    found = asked({"payload": payload, "parameter": {"n": 1}}, wrapper=Open)
    nodes = [(node.key, bytes(node.get_data()), node.type) for node in found.request.list]
    assert nodes == [("a", b"text", 0), ("b", b"\x00\xff", 2), ("c", b'{"deep":1}\n', 0)]
    assert found.params["n"] == "1"
