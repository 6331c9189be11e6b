"""Arrays and their bytes: dtypes, shapes and the npy format, every size checked beforehand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve.specs import DTYPES, Tensor

Array = NDArray[Any]

MAX_RANK = 32
MAX_BYTES = 2**62
"""Far over what fits anywhere, far under what overflows numpy's own arithmetic."""
MAX_NPY_HEADER = 4096

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}

WIRE_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in DTYPES}

_ENTRY = r"""\s*['"](descr|fortran_order|shape)['"]\s*:\s*('[^'\\]*'|True|False|\([\d,\s]*\))"""
_HEADER = re.compile(rf"\{{{_ENTRY}(?:\s*,{_ENTRY}){{2}}\s*(?:,\s*)?\}}")


def checked_size(spec: Tensor, shape: Sequence[int]) -> int:
    """Return how many bytes an array of ``shape`` has.

    Raises:
        ValueError: the shape is none, or not one that ``spec`` allows.
    """
    if len(shape) > MAX_RANK:
        raise ValueError(f"{len(shape)} dimensions; expected at most {MAX_RANK}")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"shape {list(shape)}; expected sizes >= 0")
    if spec.shape is not None and (
        len(shape) != len(spec.shape)
        or any(wanted not in (-1, n) for n, wanted in zip(shape, spec.shape, strict=True))
    ):
        raise ValueError(f"shape {list(shape)}; expected {list(spec.shape)} (-1: any size)")
    itemsize = WIRE_DTYPES[spec.dtype].itemsize
    # numpy multiplies the sizes of an empty array too.
    if prod(max(n, 1) for n in shape) * itemsize > MAX_BYTES:
        raise ValueError(f"shape {list(shape)} is too large")
    return prod(shape) * itemsize


def view(spec: Tensor, shape: Sequence[int], data: memoryview, *, fortran: bool = False) -> Array:
    """Return the array whose little-endian bytes are ``data``: a read-only view where possible.

    Raises:
        ValueError: shape or number of bytes are not what they must be.
    """
    size = checked_size(spec, shape)
    if data.nbytes != size:
        raise ValueError(
            f"{data.nbytes} bytes; expected {size} for {spec.dtype} of shape {list(shape)}"
        )
    dtype = WIRE_DTYPES[spec.dtype]
    if size == 0:
        return _owned(spec, np.empty(shape, dtype))
    array: Array = np.frombuffer(data.toreadonly(), dtype)
    if spec.dtype == "bool" and array.view(np.uint8).max() > 1:
        raise ValueError("bytes other than 0 and 1 in a bool tensor")
    array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    # Native code trusts the alignment that numpy alone checks.
    return array if array.flags.aligned and not spec.writable else _owned(spec, array.copy())


def _owned(spec: Tensor, array: Array) -> Array:
    array.flags.writeable = spec.writable
    return array


def from_raw(spec: Tensor, data: memoryview, shape: str | None) -> Array:
    """Read raw little-endian bytes; ``shape`` as in ``?shape=2,3``, needed for free dimensions.

    Raises:
        ValueError: the bytes are no such array.
    """
    if shape is not None:
        if not re.fullmatch(r"(\d{1,19}(,\d{1,19})*)?", shape, re.ASCII):
            raise ValueError(f"shape {shape[:40]!r}; expected sizes such as 2,3")
        return view(spec, [int(size) for size in shape.split(",") if size], data)
    if spec.shape is None or -1 in spec.shape:
        raise ValueError("raw bytes of a free shape; expected ?shape=2,3 beside them")
    return view(spec, spec.shape, data)


def from_npy(spec: Tensor, data: memoryview) -> Array:
    """Read an npy file (versions 1.0 to 3.0, no pickles).

    Raises:
        ValueError: it is malformed, truncated, or another array than ``spec`` allows.
    """
    width = LENGTH_BYTES.get(tuple(data[6:8])) if data[:6] == MAGIC else None  # type: ignore[arg-type] # as long as the slice
    if width is None:
        raise ValueError("not an npy file of version 1.0, 2.0 or 3.0")
    start = 8 + width
    length = int.from_bytes(data[8:start], "little")
    if length > MAX_NPY_HEADER:
        raise ValueError(f"an npy header of {length} bytes; expected at most {MAX_NPY_HEADER}")
    if data.nbytes < start + length:
        raise ValueError("a truncated npy header")
    descr, fortran, shape = _npy_header(str(data[start : start + length], "latin-1"))
    wanted = WIRE_DTYPES[spec.dtype].str
    if descr != wanted and not (wanted[0] == "|" and descr[1:] == wanted[1:]):
        raise ValueError(f"dtype {descr!r}; expected {wanted!r} ({spec.dtype}, little-endian)")
    return view(spec, shape, data[start + length :], fortran=fortran)


@lru_cache(maxsize=64)
def _npy_header(text: str) -> tuple[str, bool, tuple[int, ...]]:
    # By pattern: a Python literal from a stranger can exhaust the parser's stack.
    found = dict(re.findall(_ENTRY, text)) if _HEADER.fullmatch(text.strip()) else {}
    try:
        order = {"True": True, "False": False}[found["fortran_order"]]
        listed = found["shape"].strip("()").split(",")
        sizes = tuple(int(size) for size in listed if size.strip())
        return found["descr"].strip("'"), order, sizes
    except (KeyError, ValueError):
        raise ValueError(
            "a malformed npy header; expected descr, fortran_order and shape of a plain dtype"
        ) from None


def npy_head(array: Array) -> bytes:
    """Write what stands before the bytes of ``array`` in an npy file of version 1.0."""
    head = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    padded = head.encode() + b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"".join((MAGIC, b"\x01\x00", len(padded).to_bytes(2, "little"), padded))


def data_of(array: Array) -> memoryview:
    """Return the bytes of ``array`` in C order, without a copy if it lies so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def from_nested(spec: Tensor, found: Any) -> Array:
    """Make an array of nested lists of numbers.

    Raises:
        ValueError: they are ragged, of another shape, or hold what the dtype cannot.
    """
    rank = _depth(found) if spec.shape is None else len(spec.shape)
    try:
        checked = msgspec.convert(found, _nested_type(spec.dtype, rank))
        with np.errstate(over="raise"):
            array: Array = np.array(checked, WIRE_DTYPES[spec.dtype])
    except msgspec.ValidationError as exc:
        raise ValueError(str(exc)) from None
    except (FloatingPointError, OverflowError):
        raise ValueError(f"a number that {spec.dtype} cannot hold") from None
    except ValueError:
        raise ValueError("ragged lists; expected lists of one length in each dimension") from None
    if array.ndim < rank and spec.shape is not None:
        # An empty list hides the dimensions inside it.
        array = array.reshape(*array.shape, *(max(n, 0) for n in spec.shape[array.ndim :]))
    checked_size(spec, array.shape)
    return _owned(spec, array)


def _depth(found: Any) -> int:
    depth = 0
    while isinstance(found, (list, tuple)):
        depth += 1
        if depth > MAX_RANK:
            raise ValueError(f"more than {MAX_RANK} dimensions")
        found = found[0] if found else None
    return depth


@cache
def _nested_type(dtype: str, rank: int) -> Any:
    kind = np.dtype(dtype).kind
    number: Any = {"b": bool, "f": float}.get(kind, int)
    if kind in "iu":
        info = np.iinfo(dtype)
        # msgspec's bounds end at 2**63 - 1; numpy itself refuses what is over uint64.
        number = Annotated[
            int, msgspec.Meta(ge=int(info.min), le=int(info.max) if info.max < 2**63 else None)
        ]
    for _ in range(rank):
        number = list[number]
    return number


def checked_array(spec: Tensor, value: Any) -> Array:
    """Return ``value`` if it is an array as ``spec`` says.

    Raises:
        ValueError: it is not; the message tells what it is instead.
    """
    if not isinstance(value, (np.ndarray, np.generic)):
        raise ValueError(f"{type(value).__name__}; expected an array of {spec.dtype}")
    if value.dtype != WIRE_DTYPES[spec.dtype]:
        raise ValueError(f"dtype {value.dtype}; expected {spec.dtype}")
    checked_size(spec, value.shape)
    return np.asarray(value)


def finite(array: Array) -> bool:
    """Tell whether ``array`` has a JSON form: it holds neither NaN nor an infinity."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
