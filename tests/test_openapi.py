"""The OpenAPI document says what is served: valid, complete, each model by itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.testclient import TestClient

from atomserve.errors import AdminError, BadAnswer, Invalid, Overloaded, all_errors, problem
from atomserve.fields import Audio, Blob, Image, Text, Video
from atomserve.signature import Signature, read_contract
from atomserve.specs import Tensor
from atomserve.surfaces import health, openapi
from atomserve.wrapper import Wrapper

Vectors = Annotated[np.ndarray, Tensor("float32", (-1, 3))]


class Crop(msgspec.Struct):
    picture: Image
    score: float


class Page(msgspec.Struct):
    lines: list[str]
    crops: list[Crop]


class Match(msgspec.Struct):
    place: Annotated[np.ndarray, Tensor("int32", (2,))] | None


class Ocr(Wrapper):
    """Read the text in a picture.

    Works best on **printed** text.
    """

    def predict(
        self, image: Image, language: Literal["en", "zh"] = "en", detail: bool = False
    ) -> Page:
        return Page([], [])


def in_query(document: Any, name: str) -> list[Any]:
    return [each for each in predict(document, name)["parameters"] if each["in"] == "query"]


class Norm(Wrapper):
    def predict(self, vectors: Vectors, scale: float) -> Vectors:
        return vectors


class Sketch(Wrapper):
    def predict(self, prompt: Text, seed: Annotated[int, msgspec.Meta(ge=0)] = 0) -> Image:
        return np.zeros((1, 1, 3), np.uint8)


class Voice(Wrapper):
    def predict(self, text: str) -> Audio: ...


class Film(Wrapper):
    def predict(self, film: Video, cuts: list[float]) -> Video:
        return film


class Copy(Wrapper):
    def predict(self, data: Blob) -> Blob:
        return data


class Count(Wrapper):
    """Count to a number."""

    def predict(self, to: int) -> Iterator[int]:
        yield from range(to)


@dataclass
class Turn:
    text: str


class Chat(Wrapper):
    """Talk."""

    def session(self, inputs: Iterator[Turn]) -> Iterator[str]:
        for turn in inputs:
            yield turn.text


class Batched(Wrapper):
    def predict_batch(self, requests: list[Crop]) -> list[list[Match]]:
        return [[] for _ in requests]


def signature(wrapper: type[Wrapper], *examples: dict[str, Any]) -> Signature:
    read = read_contract(wrapper).signature
    # As it comes to an API process: through bytes.
    sent = msgspec.json.encode(msgspec.structs.replace(read, examples=examples))
    return msgspec.json.decode(sent, type=Signature)


MODELS = {
    "ocr": signature(Ocr),
    "norm": signature(Norm, {"vectors": [[1, 2, 3]], "scale": 0.5}),
    "sketch-2.1": signature(Sketch, {"prompt": "a cat's tail"}, {"prompt": "dog", "seed": 4}),
    "voice": signature(Voice, {"text": "hello"}),
    "film": signature(Film),
    "copy": signature(Copy, {"data": "AAEC"}),
    "count": signature(Count, {"to": 3}),
    "chat": signature(Chat),
    "batched": signature(Batched),
}


def describe(models: dict[str, Signature], prefix: str = "") -> dict[str, Any]:
    found = openapi.document(models, prefix=prefix, title="atomserve", version="0.1.0")
    return json.loads(msgspec.json.encode(found))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe(MODELS)


def predict(document: dict[str, Any], name: str) -> dict[str, Any]:
    return document["paths"][f"/v1/models/{name}/predict"]["post"]


def requests(document: dict[str, Any], name: str) -> dict[str, Any]:
    return predict(document, name)["requestBody"]["content"]


def answers(document: dict[str, Any], name: str) -> dict[str, Any]:
    return predict(document, name)["responses"]["200"]["content"]


def accepts(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    whole = {**schema, "components": document["components"]}
    return Draft202012Validator(whole).is_valid(value)


@pytest.mark.parametrize("prefix", ["", "/api", "/a/b"])
def test_the_document_is_openapi_3_1(prefix: str) -> None:
    OpenAPIV31SpecValidator(describe(MODELS, prefix)).validate()


def test_the_document_of_no_models_is_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(describe({})).validate()


@pytest.mark.parametrize("name", ["norm", "sketch-2.1", "voice", "copy", "count"])
def test_examples_fit_the_schema_that_they_stand_beside(
    document: dict[str, Any], name: str
) -> None:
    body = requests(document, name)["application/json"]
    assert len(body["examples"]) == len(MODELS[name].examples)
    for example in body["examples"].values():
        assert accepts(document, body["schema"], example["value"])


def test_a_json_body_takes_no_unknown_and_misses_no_required_input(
    document: dict[str, Any],
) -> None:
    schema = requests(document, "norm")["application/json"]["schema"]
    assert not accepts(document, schema, {"vectors": [[1, 2, 3]]})
    assert not accepts(document, schema, {"vectors": [[1, 2]], "scale": 1})
    assert not accepts(document, schema, {"vectors": [[1, 2, 3]], "scale": 1, "more": 1})


def test_an_example_too_large_to_read_is_left_out() -> None:
    large = describe({"copy": signature(Copy, {"data": "A" * 100_000})})
    assert "examples" not in requests(large, "copy")["application/json"]
    assert len(json.dumps(large)) < 30_000


def test_two_models_with_one_class_name_keep_their_definitions_apart() -> None:
    def wrapper(kind: type) -> type[Wrapper]:
        Same = msgspec.defstruct("Same", [("value", kind)])

        class Served(Wrapper):
            def predict(self, same: Same) -> Same:  # type: ignore[valid-type]
                return same

        Served.predict.__annotations__ = {"same": Same, "return": Same}
        return Served

    both = describe({"a": signature(wrapper(int)), "b": signature(wrapper(str))})
    OpenAPIV31SpecValidator(both).validate()
    assert accepts(both, answers(both, "a")["application/json"]["schema"], {"value": 1})
    assert accepts(both, answers(both, "b")["application/json"]["schema"], {"value": "x"})
    assert not accepts(both, answers(both, "b")["application/json"]["schema"], {"value": 1})


def test_a_tagged_union_finds_its_members_under_their_new_names() -> None:
    class Square(msgspec.Struct, tag=True):
        side: float

    class Circle(msgspec.Struct, tag=True):
        radius: float

    class Area(Wrapper):
        def predict(self, shape):  # type: ignore[no-untyped-def]
            return 0.0

    Area.predict.__annotations__ = {"shape": Square | Circle, "return": float}
    found = describe({"area": signature(Area)})
    shape = requests(found, "area")["application/json"]["schema"]["properties"]["shape"]
    assert set(shape["discriminator"]["mapping"].values()) <= {
        f"#/components/schemas/{name}" for name in found["components"]["schemas"]
    }


def test_a_raw_body_stands_beside_its_scalars_in_the_query(document: dict[str, Any]) -> None:
    assert {"image/png", "image/jpeg", "application/octet-stream"} <= set(requests(document, "ocr"))
    assert {"application/x-npy", "application/octet-stream"} <= set(requests(document, "norm"))
    query = {each["name"]: each for each in in_query(document, "ocr")}
    assert list(query) == ["language", "detail"]
    assert query["language"]["schema"] == {"enum": ["en", "zh"]}
    assert 'default `"en"`' in query["language"]["description"]
    assert [each["name"] for each in in_query(document, "norm")] == ["scale", "shape"]
    assert not any(each.get("required") for each in query.values())


@pytest.mark.parametrize("name", ["film", "voice", "count"])
def test_no_raw_body_where_it_could_not_say_everything(document: dict[str, Any], name: str) -> None:
    forms = {"application/json", "application/msgpack", "multipart/form-data"}
    assert set(requests(document, name)) == forms
    assert in_query(document, name) == []


def test_a_form_sends_files_and_plain_values(document: dict[str, Any]) -> None:
    form = requests(document, "ocr")["multipart/form-data"]
    assert form["schema"]["properties"]["image"]["format"] == "binary"
    assert form["schema"]["properties"]["detail"] == {"type": "boolean", "default": False}
    assert "image/jpeg" in form["encoding"]["image"]["contentType"]


def test_msgpack_carries_bytes_where_json_carries_base64(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert answers(document, "ocr")["application/msgpack"]["schema"] == {
        "$ref": "#/components/schemas/ocr.Page-msgpack"
    }
    crops = schemas["ocr.Page-msgpack"]["properties"]["crops"]
    assert crops["items"] == {"$ref": "#/components/schemas/ocr.Crop-msgpack"}
    assert "contentEncoding" not in schemas["ocr.Crop-msgpack"]["properties"]["picture"]
    assert schemas["ocr.Crop"]["properties"]["picture"]["contentEncoding"] == "base64"
    place = schemas["batched.Match-msgpack"]["properties"]["place"]
    assert accepts(document, place, {"dtype": "int32", "shape": [2], "data": ""})
    assert accepts(document, place, None)
    assert not accepts(document, place, [1, 2])
    packed = answers(document, "norm")["application/msgpack"]["schema"]
    assert accepts(document, packed, {"dtype": "float32", "shape": [5, 3], "data": ""})
    assert not accepts(document, packed, {"dtype": "float32", "shape": [5, 4], "data": ""})


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("ocr", set()),
        ("norm", {"application/x-npy"}),
        ("sketch-2.1", {"image/png", "image/jpeg", "image/webp"}),
        ("voice", {"audio/wav", "audio/flac", "audio/ogg"}),
        ("film", {"video/*"}),
        ("copy", {"application/octet-stream"}),
    ],
)
def test_an_answer_has_json_msgpack_and_its_own_media_types(
    document: dict[str, Any], name: str, own: set[str]
) -> None:
    assert set(answers(document, name)) == {"application/json", "application/msgpack"} | own


def test_a_stream_is_events_or_lines(document: dict[str, Any]) -> None:
    content = answers(document, "count")
    assert set(content) == {"text/event-stream", "application/x-ndjson"}
    failure = problem(BadAnswer(error_id="1"))
    event = content["text/event-stream"]["schema"]
    for sent in (
        {"event": "message", "id": "0", "data": "1"},
        {"event": "end", "data": ""},
        {"event": "error", "data": json.dumps(failure)},
        {"event": "shutdown", "retry": 1000, "data": json.dumps(failure)},
    ):
        assert accepts(document, event, sent)
    assert not accepts(document, event, {"event": "message", "data": "1"})
    assert event["oneOf"][0]["properties"]["data"]["contentSchema"] == {"type": "integer"}
    line = content["application/x-ndjson"]["schema"]
    for record in ({"data": 1}, {"end": True}, {"error": failure}):
        assert accepts(document, line, record)
    assert not accepts(document, line, {"data": "one"})


def test_a_session_is_a_websocket(document: dict[str, Any]) -> None:
    assert "/v1/models/chat/predict" not in document["paths"]
    operation = document["paths"]["/v1/models/chat/session"]["get"]
    assert "101" in operation["responses"]
    assert '{"end": true}' in operation["description"]
    assert '"text"' in operation["description"]


def test_every_status_that_a_request_may_meet_is_documented(document: dict[str, Any]) -> None:
    met = {"200", "400", "404", "405", "406", "408", "413", "415", "422", "429", "431"}
    assert set(predict(document, "ocr")["responses"]) == met | {"500", "502", "503", "504"}


@pytest.mark.parametrize("error", [Invalid("no", error_id="7"), Overloaded(retry_after=1.0)])
def test_a_failure_fits_the_documented_problem(document: dict[str, Any], error: Any) -> None:
    schema = {"$ref": "#/components/schemas/Problem"}
    assert accepts(document, schema, problem(error))
    assert not accepts(document, schema, {**problem(error), "code": "unheard_of"})


def test_every_failure_shows_what_its_codes_look_like(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Problem"}
    for response in document["components"]["responses"].values():
        examples = response["content"]["application/problem+json"]["examples"]
        assert examples
        assert all(accepts(document, schema, each["value"]) for each in examples.values())


def test_every_code_that_a_client_may_meet_is_listed(document: dict[str, Any]) -> None:
    listed = set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"])
    others = {code for code, error in all_errors().items() if issubclass(error, AdminError)}
    assert set(all_errors()) - listed - others == {"abandoned", "config", "plugin"}


def test_operations_are_told_apart_and_filed_under_their_model(document: dict[str, Any]) -> None:
    operations = [
        each
        for item in document["paths"].values()
        for each in item.values()
        if isinstance(each, dict)
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert predict(document, "ocr")["tags"] == ["ocr"]
    assert predict(document, "ocr")["summary"] == "Read the text in a picture."
    assert {tag["name"] for tag in document["tags"]} == {*MODELS, "server"}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (
            "ocr",
            "curl -H 'Content-Type: image/png' --data-binary @image.png "
            "http://localhost:8000/v1/models/ocr/predict",
        ),
        (
            "norm",
            "curl -H 'Content-Type: application/x-npy' --data-binary @vectors.npy "
            "'http://localhost:8000/v1/models/norm/predict?scale=0.5'",
        ),
        (
            "count",
            """curl -N -H 'Content-Type: application/json' -d '{"to":3}' """
            "http://localhost:8000/v1/models/count/predict",
        ),
        (
            "film",
            "curl -H 'Content-Type: application/json' -d @inputs.json "
            "http://localhost:8000/v1/models/film/predict",
        ),
    ],
)
def test_the_description_shows_how_to_call(
    document: dict[str, Any], name: str, command: str
) -> None:
    assert command in predict(document, name)["description"]


@pytest.mark.parametrize(("prefix", "server"), [("", "./"), ("/api", "../"), ("/a/b", "../../")])
def test_paths_have_the_prefix_and_addresses_are_relative(prefix: str, server: str) -> None:
    found = describe(MODELS, prefix)
    assert [each["url"] for each in found["servers"]] == [server]
    assert {f"{prefix}/v1/models", f"{prefix}/openapi.json", "/readyz"} <= set(found["paths"])


class Models:
    """What is served, and how often that was asked."""

    def __init__(self) -> None:
        self.served: dict[str, Signature] = {}

    def __call__(self) -> dict[str, Signature]:
        return self.served


def test_a_check_may_be_any_model_that_is_served(document: dict[str, Any]) -> None:
    (check,) = document["paths"]["/readyz/{check}"]["parameters"]
    assert check["schema"] == {"enum": list(MODELS)}


def test_a_model_that_becomes_ready_joins_the_document() -> None:
    models = Models()
    app = Starlette(routes=openapi.routes(models, prefix="/api", title="t", version="1"))
    with TestClient(app) as client:
        before = client.get("/api/openapi.json")
        models.served["ocr"] = MODELS["ocr"]
        after = client.get("/api/openapi.json")
        again = client.get("/api/openapi.json")
    assert before.headers["content-type"] == "application/json"
    assert "/api/v1/models/ocr/predict" not in before.json()["paths"]
    assert "/api/v1/models/ocr/predict" in after.json()["paths"]
    assert after.content == again.content


class Up:
    started, ready, draining, registration = True, True, False, None

    def states(self) -> dict[str, tuple[str, str]]:
        return {"ocr": ("ready", "")}

    def apps(self) -> dict[str, tuple[str, str]]:
        return {}


def test_the_probes_answer_as_documented(document: dict[str, Any]) -> None:
    with TestClient(Starlette(routes=health.routes(Up()))) as client:
        for path in ("/livez", "/readyz", "/startupz", "/healthz"):
            answer = client.get(path, headers={"Accept": "application/json"})
            content = document["paths"][path]["get"]["responses"]["200"]["content"]
            assert accepts(document, content["application/json"]["schema"], answer.json())


def test_the_document_names_the_header_fields_of_queues_and_caches(document: Any) -> None:
    operation = predict(document, "ocr")
    assert "Priority" in [each["name"] for each in operation["parameters"]]
    assert "Cache-Status" in operation["responses"]["200"]["headers"]
    refusals = document["components"]["responses"]["Error429"]["headers"]
    assert set(refusals) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
