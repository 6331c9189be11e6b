"""The tensors of a batch as one array: stacked, grouped, padded; in a thread and in a worker."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
import numpy as np
import pytest
from batch_rig import rig
from numpy.typing import NDArray

from atomserve import Tensor, Wrapper
from atomserve.codecs.stacking import BUFFERS, Buffers, Stacker
from atomserve.signature import read_contract

pytestmark = pytest.mark.anyio

Row = Annotated[NDArray[np.float32], Tensor("float32", (-1,))]


class Item(msgspec.Struct, frozen=True):
    row: Row
    other: Row | None = None
    name: str = ""


@dataclass(frozen=True)
class Checked:
    row: Row
    n: int = 0

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("expected n >= 0")


def stacker(item: Any, mode: object = True) -> Stacker:
    class It(Wrapper):
        stack = True

        def predict_batch(self, requests: Any) -> list[int]:
            return []

    It.predict_batch.__annotations__["requests"] = list[item]
    return Stacker(read_contract(It), mode)


def row(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_bare_tensors_become_one_array() -> None:
    stacked = stacker(Row).stack([row(1, 2), row(3, 4)])
    assert stacked.tolist() == [[1, 2], [3, 4]]
    assert stacked.dtype == np.float32


def test_numbers_without_a_shape_become_a_row() -> None:
    number = Annotated[np.ndarray, Tensor("float32", ())]
    assert stacker(number).stack([np.float32(n).reshape(()) for n in (1, 2)]).tolist() == [1, 2]


def test_a_struct_keeps_its_class_with_arrays_and_lists_in_it() -> None:
    stacked = stacker(Item).stack([Item(row(1), row(5), "a"), Item(row(2), row(6), "b")])
    assert type(stacked) is Item
    assert (stacked.row.tolist(), stacked.other.tolist()) == ([[1], [2]], [[5], [6]])
    assert stacked.name == ["a", "b"]


def test_a_class_checks_single_requests_and_not_the_stacked_one() -> None:
    stacked = stacker(Checked).stack([Checked(row(1), 1), Checked(row(2), 2)])
    assert (type(stacked), stacked.n, stacked.row.tolist()) == (Checked, [1, 2], [[1], [2]])


def test_shapes_and_missing_tensors_tell_requests_apart() -> None:
    found = stacker(Item)
    assert found.kind(Item(row(1))) == found.kind(Item(row(2)))
    assert found.kind(Item(row(1))) != found.kind(Item(row(1, 2)))
    assert found.kind(Item(row(1))) != found.kind(Item(row(1), row(1)))


def test_padding_tells_only_ranks_apart_and_puts_zeros_at_the_end() -> None:
    found = stacker(Row, "pad")
    short, long = row(1), row(1, 2, 3)
    assert found.kind(short) == found.kind(long)
    for _ in range(3):  # What lay in the buffer before is not seen.
        assert found.stack([short, long]).tolist() == [[1, 0, 0], [1, 2, 3]]
        found.stack([row(9, 9, 9), row(9, 9, 9)])


def test_padding_wastes_no_more_than_a_few_times_the_real_bytes() -> None:
    cube = Annotated[np.ndarray, Tensor("float32", (-1, -1, -1))]
    found = stacker(cube, "pad")
    small, wide = np.ones((3, 3, 3), np.float32), np.ones((9, 3, 3), np.float32)
    long = [np.ones(shape, np.float32) for shape in ((300, 1, 1), (1, 300, 1), (1, 1, 300))]
    assert found.parts([small, wide]) == [[0, 1]]
    assert found.parts([*long, small]) == [[0, 1], [2, 3]]


def test_only_padding_parts_what_is_of_one_kind() -> None:
    assert stacker(Row).parts([row(1)] * 3) == [[0, 1, 2]]
    assert stacker(Row, "pad").parts([row(1)]) == [[0]]


def test_memory_is_used_again_when_nothing_refers_to_it() -> None:
    buffers = Buffers()
    first = buffers.array((1000,), np.dtype("float32"))
    place = first.ctypes.data
    other = buffers.array((1000,), np.dtype("float32"))
    assert other.ctypes.data != place
    kept = memoryview(first)[10:20]
    del first
    assert buffers.array((1000,), np.dtype("float32")).ctypes.data != place
    del kept
    assert buffers.array((500,), np.dtype("float64")).ctypes.data == place


def test_a_stacker_knows_what_it_made() -> None:
    found = stacker(Row)
    stacked = found.stack([row(1), row(2)])
    assert found.made(stacked.base)
    assert found.made(stacked[1:].base)
    assert not found.made(row(1))
    assert not found.made(None)


def test_memory_that_is_kept_for_later_is_bounded() -> None:
    buffers = Buffers()
    held = [buffers.array((10,), np.dtype("int8")) for _ in range(3 * BUFFERS)]
    assert len({array.ctypes.data for array in held}) == 3 * BUFFERS
    assert len(buffers._roots) == BUFFERS


WRAPPER = """
    Row = Annotated[np.ndarray, Tensor("float32", (-1,))]

    class It(Wrapper):
        stack = MODE

        def predict_batch(self, requests: list[Row]) -> list[Row]:
            assert isinstance(requests, np.ndarray)
            return ANSWER
"""


def wrapper(mode: object, answer: str) -> str:
    return WRAPPER.replace("MODE", repr(mode)).replace("ANSWER", answer)


@pytest.fixture(params=["thread", "process"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_an_array_answers_row_by_row(kind: str, tmp_path: Path) -> None:
    async with rig(kind, tmp_path, wrapper(True, "requests * len(requests)")) as it:
        found = await it.ask({"input": [1, 2]}, {"input": [3, 4]}, {"input": [5]})
        assert found == [[2, 4], [6, 8], [5]]


async def test_views_of_what_was_given_answer_rightly_whatever_comes_next(
    kind: str, tmp_path: Path
) -> None:
    async with rig(kind, tmp_path, wrapper("group", "requests")) as it:
        for n in range(100):
            await it.free()
            jobs = it.run({"input": [n]}, {"input": [n + 1]})
            jobs += it.run({"input": [-n]}, {"input": [-n - 1]})
            assert await it.answers(jobs) == [[n], [n + 1], [-n], [-n - 1]]


async def test_a_padded_batch_knows_its_shapes(kind: str, tmp_path: Path) -> None:
    answer = "[row[: c.shapes['input'][0]] for row, c in zip(requests, current_batch())]"
    async with rig(kind, tmp_path, wrapper("pad", answer)) as it:
        found = await it.ask({"input": [1, 2]}, {"input": [3]}, {"input": [4, 5, 6]})
        assert found == [[1, 2], [3], [4, 5, 6]]


async def test_what_would_mostly_be_padding_is_called_apart(kind: str, tmp_path: Path) -> None:
    answer = "np.full((len(requests), 1), len(requests), np.float32)"
    async with rig(kind, tmp_path, wrapper("pad", answer)) as it:
        found = await it.ask(*({"input": [1.0] * size} for size in (1, 150_000, 2, 3, 4, 5)))
        assert found == [[5], [5], [5], [5], [5], [1]]


async def test_only_a_request_that_cannot_be_stacked_fails(kind: str, tmp_path: Path) -> None:
    text = """
        Row = Annotated[np.ndarray, Tensor("float32", (-1,))]

        @dataclass
        class Ask:
            row: Row
            n: int = 0

            def __copy__(self) -> Any:
                if self.n:
                    raise ValueError("swordfish")
                return Ask(self.row)

        class It(Wrapper):
            stack = True

            def predict_batch(self, requests: list[Ask]) -> list[Any]:
                return [1] * len(requests.row)
    """
    async with rig(kind, tmp_path, text) as it:
        found = await it.ask(*({"row": [1], "n": n} for n in (1, 0, 0)))
        assert found[0].code == "plugin_failed"
        assert found[1:] == [1, 1]


async def test_halves_of_a_stacked_batch_are_stacked_anew(kind: str, tmp_path: Path) -> None:
    answer = "requests if requests.min() >= 0 else 1 / 0"
    async with rig(kind, tmp_path, wrapper(True, answer)) as it:
        found = await it.ask(*({"input": [n]} for n in (0, 1, -2, 3)))
        assert found[2].code == "plugin_failed"
        assert [found[n] for n in (0, 1, 3)] == [[0], [1], [3]]


async def test_an_array_of_another_length_is_a_bad_answer(kind: str, tmp_path: Path) -> None:
    async with rig(kind, tmp_path, wrapper(True, "requests[1:]")) as it:
        found = await it.ask({"input": [1]}, {"input": [2]})
        assert [answer.code for answer in found] == ["bad_answer", "bad_answer"]


async def test_a_wrapper_may_write_all_its_answers_into_the_same_array(
    kind: str, tmp_path: Path
) -> None:
    text = """
        Row = Annotated[np.ndarray, Tensor("float32", (200_000,))]

        class It(Wrapper):
            def load(self, config: Any) -> None:
                self.out = np.empty((2, 200_000), np.float32)

            def predict_batch(self, requests: list[int]) -> list[Row]:
                for n, request in enumerate(requests):
                    self.out[n] = request
                return self.out[: len(requests)]
    """
    async with rig(kind, tmp_path, text) as it:
        wanted = list(range(20))
        jobs = []
        for first in range(0, 20, 2):
            while not it.slot.room + it.slot.ahead:
                await anyio.sleep(0.001)
            jobs += it.run(*({"input": n} for n in wanted[first : first + 2]), answer="npy")
        for n, job in zip(wanted, jobs, strict=True):
            array = np.load(io.BytesIO(await it.body(job)))
            assert set(array.tolist()) == {n}
