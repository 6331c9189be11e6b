"""Annotations become decodable types and JSON Schemas; what cannot is told at registration."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Optional

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from atomserve.fields import AudioClip, Blob, Image, Text
from atomserve.schemas import (
    Marker,
    class_fields,
    field_of,
    json_schemas,
    kind_of,
    mark,
    marker_of,
    shadow,
    unwrapped,
)
from atomserve.specs import BlobSpec, ImageSpec, Spec, Tensor

Points = Annotated[np.ndarray, Tensor("float32", (-1, 2))]


@dataclass
class Plain:
    a: int
    b: str = "x"


class Item(msgspec.Struct):
    image: Image
    tags: list[str] = []
    points: Points | None = None


class Node(msgspec.Struct):
    children: list["Node"] = []


@dataclass
class Page:
    items: list[Item]
    named: dict[str, Item] = field(default_factory=dict)


@pytest.mark.parametrize("annotation", [int, str, Text, Plain, list[int], dict[str, Plain], Any])
def test_what_holds_no_field_stays_as_it_is(annotation: Any) -> None:
    marked = mark(annotation)
    assert marked.type == annotation
    assert marked.rebuild is None
    assert marked.spread is None


def test_fields_that_say_the_same_share_their_marker() -> None:
    assert marker_of(Tensor("int8", (1,))) is marker_of(Tensor("int8", (1,)))
    assert marker_of(Tensor("int8", (1,))) is not marker_of(Tensor("int8", (2,)))
    assert mark(Image).type is marker_of(ImageSpec())


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (Image, "image"),
        (Image | None, "image"),
        (Optional[Points], "tensor"),  # noqa: UP045 - both spellings are written
        (Text, "text"),
        (int, "json"),
        (list[Image], "json"),
    ],
)
def test_a_field_is_known_optional_or_not(annotation: Any, kind: str) -> None:
    assert kind_of(annotation) == kind


def test_only_optional_is_unwrapped() -> None:
    assert unwrapped(int | None) is int
    assert unwrapped(int | str) == int | str
    assert field_of(Blob | None) == BlobSpec()


def decoded(annotation: Any, body: bytes) -> Any:
    marked = mark(annotation)
    found = msgspec.json.decode(body, type=marked.type, dec_hook=lambda _, value: ("leaf", value))
    return marked.rebuild(found) if marked.rebuild is not None else found


def test_classes_that_hold_fields_are_built_back() -> None:
    page = decoded(Page, b'{"items": [{"image": "a", "points": "b"}]}')
    assert page == Page([Item(("leaf", "a"), [], ("leaf", "b"))], {})  # type: ignore[arg-type]
    assert type(page) is Page
    assert type(page.items[0]) is Item


@pytest.mark.parametrize(
    ("annotation", "body", "value"),
    [
        (Item | None, b"null", None),
        (list[Item], b'[{"image": 1}]', [Item(("leaf", 1))]),  # type: ignore[arg-type]
        (tuple[Blob, ...], b"[1]", (("leaf", 1),)),
        (tuple[Item, ...], b'[{"image": 1}]', (Item(("leaf", 1)),)),  # type: ignore[arg-type]
        (dict[str, Item], b'{"a": {"image": 1}}', {"a": Item(("leaf", 1))}),  # type: ignore[arg-type]
        (Annotated[list[Blob], msgspec.Meta(max_length=2)], b"[1]", [("leaf", 1)]),
    ],
)
def test_containers_of_fields_are_decoded(annotation: Any, body: bytes, value: Any) -> None:
    assert decoded(annotation, body) == value


def test_constraints_around_fields_hold() -> None:
    with pytest.raises(msgspec.ValidationError):
        decoded(Annotated[list[Blob], msgspec.Meta(max_length=1)], b"[1, 2]")


def test_spreading_passes_every_field_on() -> None:
    met: list[tuple[Spec, Any]] = []

    def leaf(spec: Spec, value: Any) -> str:
        met.append((spec, value))
        return "leaf"

    spread = mark(Page).spread
    assert spread is not None
    written = spread(Page([Item("a")], {"k": Item("b", ["t"], "c")}), leaf)  # type: ignore[arg-type]
    assert written == {
        "items": [{"image": "leaf", "tags": [], "points": None}],
        "named": {"k": {"image": "leaf", "tags": ["t"], "points": "leaf"}},
    }
    assert [value for _, value in met] == ["a", "b", "c"]


@pytest.mark.parametrize("annotation", [np.ndarray, NDArray[np.float32], list[np.ndarray]])
def test_a_bare_array_is_refused_with_what_to_write(annotation: Any) -> None:
    with pytest.raises(TypeError, match="Tensor"):
        mark(annotation)


def test_a_field_mixes_with_none_alone() -> None:
    with pytest.raises(TypeError, match="only None may join"):
        mark(Image | str)


def test_a_class_without_fields_may_hold_itself() -> None:
    assert mark(Node).type is Node


def test_the_fields_of_both_kinds_of_class_are_listed() -> None:
    assert class_fields(int) is None
    assert class_fields(Plain) == [("a", int, msgspec.NODEFAULT), ("b", str, "x")]
    names = [(name, default is msgspec.NODEFAULT) for name, _, default in class_fields(Item) or ()]
    assert names == [("image", True), ("tags", False), ("points", False)]


def test_a_shadow_refuses_unknown_names_and_shares_no_default() -> None:
    struct = shadow("S", [("a", list[int], [])])
    with pytest.raises(msgspec.ValidationError, match="unknown"):
        msgspec.json.decode(b'{"b": 1}', type=struct)
    first, second = (msgspec.json.decode(b"{}", type=struct) for _ in range(2))
    first.a.append(1)
    assert second.a == []


def test_schemas_say_what_json_holds() -> None:
    marked = mark(Page)
    struct = shadow("In", [("page", marked.type, msgspec.NODEFAULT), ("n", int, 3)])
    schemas = json_schemas(struct, mark(Points).type)
    assert schemas.required == {"page"}
    assert schemas.inputs["page"] == {"$ref": "#/components/schemas/Page"}
    assert schemas.inputs["n"] == {"type": "integer", "default": 3}
    assert schemas.output["items"]["maxItems"] == 2
    assert "maxItems" not in schemas.output
    image = schemas.definitions["Item"]["properties"]["image"]
    assert image["contentEncoding"] == "base64"
    assert image["contentMediaType"] == "image/png"


@pytest.mark.parametrize(
    ("dtype", "schema"),
    [
        ("bool", {"type": "boolean"}),
        ("float16", {"type": "number"}),
        ("int8", {"type": "integer", "minimum": -128, "maximum": 127}),
    ],
)
def test_a_tensor_without_dimensions_is_a_number(dtype: str, schema: dict[str, Any]) -> None:
    struct = shadow("In", [("x", marker_of(Tensor(dtype, ())), msgspec.NODEFAULT)])
    found = json_schemas(struct, int).inputs["x"]
    assert {**schema, "description": f"{dtype} tensor of shape []"} == found


def test_markers_accept_what_the_codec_made() -> None:
    assert isinstance(AudioClip(np.zeros((1, 1), "float32"), 1), marker_of(BlobSpec()))
    assert issubclass(marker_of(BlobSpec()), Marker)


@pytest.mark.parametrize("shape", [(-2,), (1.5,), (True,)])
def test_a_tensor_says_a_shape_that_exists(shape: Any) -> None:
    with pytest.raises(ValueError, match="shape"):
        Tensor("int8", shape)


def test_a_tensor_says_a_dtype_that_exists() -> None:
    with pytest.raises(ValueError, match="float32"):
        Tensor("float")
    assert Tensor("int8", [1, 2]).shape == (1, 2)  # type: ignore[arg-type]
