"""Arrays and their bytes: nothing is read that the signature does not allow."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atomserve.codecs.tensors import (
    MAX_NPY_HEADER,
    checked_array,
    checked_size,
    data_of,
    finite,
    from_nested,
    from_npy,
    from_raw,
    npy_head,
    view,
)
from atomserve.specs import DTYPES, Tensor

FREE = Tensor("float32")


def arrays() -> st.SearchStrategy[np.ndarray]:
    return st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
    )


def written(array: np.ndarray) -> bytes:
    return npy_head(array) + bytes(data_of(array))


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> memoryview:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy warns of versions 2.0 and 3.0
        np.lib.format.write_array(out, array, version)
    return memoryview(out.getvalue())


@settings(deadline=None)
@given(arrays(), st.sampled_from([None, (1, 0), (2, 0), (3, 0)]))
def test_what_numpy_saves_is_read(array: np.ndarray, version: tuple[int, int] | None) -> None:
    found = from_npy(Tensor(array.dtype.name), saved(array, version))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@settings(deadline=None)
@given(arrays())
def test_what_is_written_numpy_loads(array: np.ndarray) -> None:
    loaded = np.load(io.BytesIO(written(array)), allow_pickle=False)
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


@settings(deadline=None)
@given(arrays())
def test_nested_lists_come_back_as_the_same_array(array: np.ndarray) -> None:
    if not finite(array):
        array = np.nan_to_num(array)
    spec = Tensor(array.dtype.name, (-1,) * array.ndim)
    found = from_nested(spec, array.tolist())
    # An empty list hides the sizes inside it.
    assert found.shape == array.shape or array.size == 0
    np.testing.assert_array_equal(found.ravel(), array.ravel())


@settings(deadline=None)
@given(arrays())
def test_raw_bytes_come_back_as_the_same_array(array: np.ndarray) -> None:
    shape = ",".join(map(str, array.shape))
    found = from_raw(Tensor(array.dtype.name), memoryview(array.tobytes()), shape)
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_the_data_is_viewed_not_copied() -> None:
    body = bytearray(written(np.arange(12, dtype="float32").reshape(3, 4)))
    found = from_npy(FREE, memoryview(body))
    assert np.shares_memory(found, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_view_cannot_be_written_or_made_writable(kind: type) -> None:
    found = view(FREE, [2], memoryview(kind(8)))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        found.flags.writeable = True


def test_writable_gives_a_copy_of_ones_own() -> None:
    body = bytearray(8)
    found = view(Tensor("float32", writable=True), [2], memoryview(body))
    found[0] = 1
    assert bytes(body) == bytes(8)
    assert from_nested(Tensor("float32", writable=True), [1.0]).flags.writeable
    assert not from_nested(FREE, [1.0]).flags.writeable


def test_unaligned_bytes_become_an_aligned_array() -> None:
    found = view(FREE, [2], memoryview(bytes(9))[1:])
    assert found.flags.aligned
    assert not found.flags.writeable


def test_fortran_order_is_taken() -> None:
    array = np.asfortranarray(np.arange(6, dtype="float32").reshape(2, 3))
    found = from_npy(FREE, saved(array))
    np.testing.assert_array_equal(found, array)
    assert found.shape == (2, 3)


def test_an_array_in_any_order_is_written_in_c_order() -> None:
    array = np.arange(12, dtype="int16").reshape(3, 4).T[::2]
    assert bytes(data_of(array)) == array.tobytes()
    np.testing.assert_array_equal(np.load(io.BytesIO(written(array))), array)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(2, ">f4"), "little-endian"),
        (np.zeros(2, "f8"), "expected '<f4'"),
        (np.zeros(2, "c8"), "expected '<f4'"),
        (np.zeros(2, [("a", "f4")]), "malformed npy header"),
        (np.array(["ab"]), "expected '<f4'"),
    ],
)
def test_another_dtype_is_refused(array: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_npy(FREE, saved(array))


def test_a_pickle_is_refused_unread() -> None:
    with pytest.raises(ValueError, match=r"'\|O'"):
        from_npy(FREE, saved(np.array([object], dtype=object)))


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> memoryview:
    return memoryview(
        b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + data
    )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2,)}",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': ()}",
        "{'descr': '<f4', 'descr': '<f4', 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ()}; import os",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': ()}",
        "(" * 4000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 33 + ")}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 3000 + ",)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551617,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 0)}",
        " " * 4000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': ()" + " " * 4000,
    ],
)
def test_a_strange_npy_header_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match=r"header|shape|dimensions"):
        from_npy(FREE, npy(header, bytes(4)))


def test_a_header_over_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(ValueError, match="at most"):
        from_npy(FREE, npy(" " * (MAX_NPY_HEADER + 1)))


def test_every_cut_of_an_npy_file_is_refused() -> None:
    whole = written(np.ones(3, "float32"))
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r".+"):
            from_npy(FREE, memoryview(whole)[:end])
    with pytest.raises(ValueError, match="13 bytes; expected 12"):
        from_npy(FREE, memoryview(whole + b"x"))


def test_other_writers_spacing_and_order_are_read() -> None:
    header = '{"shape":(2,),"fortran_order":False,"descr":\'<f4\'}'
    assert from_npy(FREE, npy(header, bytes(8))).shape == (2,)


@settings(deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.lists(
        st.one_of(
            st.integers(-2, 5),
            st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 + 4]),
        ),
        max_size=40,
    ),
    st.binary(max_size=64),
)
def test_sizes_are_checked_before_an_array_is_made(
    dtype: str, shape: list[int], data: bytes
) -> None:
    spec = Tensor(dtype)
    fits = False
    if len(shape) <= 32 and all(n >= 0 for n in shape):
        size = np.dtype(dtype).itemsize
        for n in shape:
            size *= n
        fits = size == len(data) and (size > 0 or all(n < 2**31 for n in shape))
    try:
        found = view(spec, shape, memoryview(data))
    except ValueError:
        assert not fits or dtype == "bool" or 2**31 in shape
    else:
        assert found.shape == tuple(shape)
        assert found.nbytes == len(data)


@pytest.mark.parametrize(
    ("wanted", "shape", "fits"),
    [
        ((-1, 3), [5, 3], True),
        ((-1, 3), [0, 3], True),
        ((-1, 3), [3, 5], False),
        ((-1, 3), [3], False),
        ((), [], True),
        ((), [1], False),
        ((2,), [2], True),
        (None, [1] * 32, True),
        (None, [1] * 33, False),
        (None, [True], False),
    ],
)
def test_a_shape_fits_or_is_refused(
    wanted: tuple[int, ...] | None, shape: list[int], fits: bool
) -> None:
    spec = Tensor("int8", wanted)
    if fits:
        assert checked_size(spec, shape) == np.prod(shape)
    else:
        with pytest.raises(ValueError, match="expected"):
            checked_size(spec, shape)


@pytest.mark.parametrize(
    ("dtype", "found", "reason"),
    [
        ("float32", [True], "got `bool`"),
        ("float32", ["1"], "got `str`"),
        ("float32", [None], "got `null`"),
        ("float32", [[1], [2, 3]], "ragged"),
        ("float32", [[1], 2], r"at `\$\[1\]`"),
        ("float32", [1e39], "cannot hold"),
        ("float16", [70000], "cannot hold"),
        ("float64", [10**400], "out of range"),
        ("int8", [128], "<= 127"),
        ("int8", [-129], ">= -128"),
        ("uint8", [-1], ">= 0"),
        ("uint64", [2**64], "cannot hold"),
        ("int64", [2**63], "<="),
        ("int32", [1.0], "got `float`"),
        ("bool", [1], "got `int`"),
        ("int32", {"a": 1}, "got `object`"),
    ],
)
def test_numbers_that_are_not_of_the_dtype_are_refused(
    dtype: str, found: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        from_nested(Tensor(dtype), found)


def test_lists_that_are_too_deep_are_refused() -> None:
    deep: object = 1.0
    for _ in range(33):
        deep = [deep]
    with pytest.raises(ValueError, match="32 dimensions"):
        from_nested(FREE, deep)


def test_the_ends_of_the_integers_are_held() -> None:
    for dtype in ("int64", "uint64", "int8"):
        info = np.iinfo(dtype)
        found = from_nested(Tensor(dtype), [int(info.min), int(info.max)])
        assert found.tolist() == [info.min, info.max]


def test_an_empty_list_has_the_sizes_the_signature_knows() -> None:
    assert from_nested(Tensor("float32", (-1, 3)), []).shape == (0, 3)
    assert from_nested(Tensor("float32", (-1, -1, 3)), [[], []]).shape == (2, 0, 3)


def test_a_bool_is_zero_or_one() -> None:
    with pytest.raises(ValueError, match="0 and 1"):
        view(Tensor("bool"), [2], memoryview(b"\x00\x02"))


@pytest.mark.parametrize("shape", ["2,", "-1", "a", "2;3", "1" * 30, " 2", "٢"])
def test_a_strange_shape_is_refused(shape: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_raw(FREE, memoryview(bytes(8)), shape)


def test_a_shape_is_asked_for_only_where_it_is_free() -> None:
    assert from_raw(Tensor("float32", (2,)), memoryview(bytes(8)), None).shape == (2,)
    with pytest.raises(ValueError, match="shape=2,3"):
        from_raw(Tensor("float32", (-1,)), memoryview(bytes(8)), None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0], "list; expected an array of float32"),
        (np.zeros(2, "float64"), "dtype float64; expected float32"),
        (np.zeros(2, ">f4"), "expected float32"),
        (np.zeros((2, 2), "float32"), r"shape \[2, 2\]"),
    ],
)
def test_an_answer_is_an_array_as_annotated(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        checked_array(Tensor("float32", (2,)), value)


def test_a_numpy_scalar_is_an_array_without_dimensions() -> None:
    assert checked_array(Tensor("float32", ()), np.float32(2)).shape == ()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_nan_and_the_infinities_have_no_json_form(number: float) -> None:
    assert not finite(np.array([1, number], "float16"))
    assert finite(np.array([1, 2], "int8"))
