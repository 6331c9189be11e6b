"""What a class says is read once; what it cannot mean is one line that names the place."""

import enum
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest

from atomserve import Audio, Blob, Image, Tensor, Text, Wrapper
from atomserve.errors import PluginError
from atomserve.signature import Signature, read_contract

Points = Annotated[np.ndarray, Tensor("float32", (-1, 2))]


class Ask(msgspec.Struct):
    image: Image
    n: int = 1


class Color(enum.Enum):
    RED = "red"


class Config(msgspec.Struct):
    path: str


class Simple(Wrapper):
    """Adds."""

    version = "7"

    def load(self, config: Config) -> None: ...

    def predict(self, a: float, b: float = 1.0, *, exact: bool = False) -> float:
        return a + b


class Media(Wrapper):
    def predict(self, image: Image, points: Points | None = None, label: Text = "") -> Points:
        """Find points."""
        raise NotImplementedError


class Counting(Wrapper):
    def predict(self, n: int) -> Iterator[int]:
        yield from range(n)


class AsyncCounting(Wrapper):
    async def predict(self, n: int) -> AsyncIterator[int]:
        yield n


class Batched(Wrapper):
    def predict_batch(self, requests: list[Ask]) -> list[str]:
        return []


class BareBatch(Wrapper):
    def predict_batch(self, requests: list[Points]) -> list[float]:
        return []


class Session(Wrapper):
    def session(self, inputs: Iterator[Ask]) -> Iterator[Audio]:
        yield from ()


def test_parameters_become_fields() -> None:
    contract = read_contract(Simple)
    signature = contract.signature
    assert [(f.name, f.kind, f.required, f.scalar) for f in signature.inputs] == [
        ("a", "json", True, True),
        ("b", "json", False, True),
        ("exact", "json", False, True),
    ]
    assert (signature.takes, signature.streams) == ("call", False)
    assert (signature.description, signature.version) == ("Adds.", "7")
    assert (contract.positional, contract.keywords) == (("a", "b"), ("exact",))
    assert contract.config is Config
    assert contract.rebuilds == contract.spreads == {}


def test_fields_tell_kind_dtype_and_shape() -> None:
    signature = read_contract(Media).signature
    image, points, label = signature.inputs
    assert (image.kind, image.media_type, image.scalar) == ("image", "image/png", False)
    assert (points.kind, points.dtype, points.dims) == ("tensor", "float32", (-1, 2))
    assert not points.required
    assert (label.kind, label.scalar) == ("text", True)
    assert (signature.output.name, signature.output.kind) == ("output", "tensor")
    assert signature.description == "Find points."
    assert signature.binary_input is None


def test_the_single_binary_input_is_found() -> None:
    class One(Wrapper):
        def predict(self, blob: Blob, label: Text, n: int) -> int:
            return 0

    found = read_contract(One).signature.binary_input
    assert found is not None
    assert found.name == "blob"
    assert read_contract(Simple).signature.binary_input is None


@pytest.mark.parametrize(
    ("annotation", "scalar"),
    [
        (str, True),
        (int | None, True),
        (Literal["a", "b"], True),
        (Color, True),
        (Color | None, True),
        (Annotated[int, msgspec.Meta(ge=1)], True),
        (list[int], False),
        (dict[str, int], False),
        (Ask, False),
        (Any, False),
        (Blob, False),
    ],
)
def test_scalars_are_what_plain_text_can_say(annotation: Any, scalar: bool) -> None:
    class Model(Wrapper):
        def predict(self, x: Any) -> int:
            return 0

    Model.predict.__annotations__["x"] = annotation
    assert read_contract(Model).signature.inputs[0].scalar is scalar


@pytest.mark.parametrize(
    ("cls", "is_async"), [(Counting, False), (AsyncCounting, True), (Simple, False)]
)
def test_generators_stream(cls: type[Wrapper], is_async: bool) -> None:
    contract = read_contract(cls)
    assert contract.signature.streams is (cls is not Simple)
    assert contract.is_async is is_async


@pytest.mark.parametrize(
    ("cls", "takes", "names", "request_class"),
    [
        (Batched, "batch", ["image", "n"], Ask),
        (BareBatch, "batch", ["input"], None),
        (Session, "session", ["image", "n"], Ask),
    ],
)
def test_requests_are_unpacked_to_their_fields(
    cls: type[Wrapper], takes: str, names: list[str], request_class: type | None
) -> None:
    contract = read_contract(cls)
    assert contract.signature.takes == takes
    assert contract.signature.streams is (takes == "session")
    assert [field.name for field in contract.signature.inputs] == names
    assert contract.request is request_class


def test_a_bare_request_is_required() -> None:
    assert read_contract(BareBatch).signature.inputs[0].required


def test_a_signature_crosses_processes_as_data() -> None:
    for cls in (Simple, Media, Counting, Batched, Session):
        signature = read_contract(cls).signature
        sent = msgspec.msgpack.encode(signature)
        assert msgspec.msgpack.decode(sent, type=Signature) == signature


def test_what_holds_fields_can_be_spread_again() -> None:
    class Model(Wrapper):
        def predict(self, ask: Ask, image: Image, n: int) -> int:
            return 0

    contract = read_contract(Model)
    assert set(contract.rebuilds) == {"ask"}
    assert set(contract.spreads) == {"ask", "image"}


class NoMethod(Wrapper):
    pass


class TwoMethods(Wrapper):
    def predict(self, x: int) -> int:
        return x

    def predict_batch(self, requests: list[int]) -> list[int]:
        return requests


class NoAnnotation(Wrapper):
    def predict(self, x) -> int:  # type: ignore[no-untyped-def]
        return 0


class Starred(Wrapper):
    def predict(self, *xs: int) -> int:
        return 0


class Unresolved(Wrapper):
    def predict(self, x: "Nowhere") -> int:  # type: ignore[name-defined] # noqa: F821
        return 0


class BareArray(Wrapper):
    def predict(self, x: np.ndarray) -> int:
        return 0


class BareArrayBack(Wrapper):
    def predict(self, x: int) -> np.ndarray:
        return np.zeros(1)


class Odd(Wrapper):
    def predict(self, x: complex) -> int:
        return 0


class Tree(msgspec.Struct):
    image: Image
    children: list["Tree"] = []


class Recursive(Wrapper):
    def predict(self, x: Tree) -> int:
        return 0


class BatchOfOne(Wrapper):
    def predict_batch(self, request: Ask) -> list[int]:
        return []


class BatchToOne(Wrapper):
    def predict_batch(self, requests: list[Ask]) -> int:
        return 0


class YieldsInt(Wrapper):
    def predict(self, x: int) -> int:  # type: ignore[misc]
        yield x


class Unloadable(Wrapper):
    def load(self, config: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821

    def predict(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    ("cls", "where", "expected"),
    [
        (NoMethod, "predict", "expected exactly one of predict, predict_batch, session"),
        (TwoMethods, "predict", "has predict and predict_batch"),
        (NoAnnotation, "predict(x)", "for instance `x: float`"),
        (Starred, "predict(*xs", "expected parameters by name"),
        (Unresolved, "predict", "'Nowhere' is not defined"),
        (BareArray, "predict(x)", 'Annotated[np.ndarray, Tensor("float32", (-1, 3))]'),
        (BareArrayBack, "predict return", "neither dtype nor shape"),
        (Odd, "predict", "complex"),
        (Recursive, "predict", "Tree"),
        (BatchOfOne, "predict_batch", "`requests: list[R]`"),
        (BatchToOne, "predict_batch", "`list[R]`"),
        (YieldsInt, "predict", "`Iterator[R]`"),
        (Unloadable, "load", "'Nowhere' is not defined"),
    ],
)
def test_what_a_class_cannot_mean_is_one_line(
    cls: type[Wrapper], where: str, expected: str
) -> None:
    with pytest.raises(PluginError) as caught:
        read_contract(cls, plugin="mine")
    told = str(caught.value)
    assert told.startswith(f"plugin 'mine': {cls.__name__}.{where}")
    assert expected in told
    assert "\n" not in told
