"""The tensors of several requests as one array each, with a leading batch axis."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from math import prod
from threading import Lock
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve.codecs.references import ALONE, references
from atomserve.signature import Contract

Array = NDArray[Any]

BUFFERS = 4
"""Arrays whose memory is kept for later batches: fresh pages cost more than the copy."""

WASTE = 4
"""Times their own bytes that the tensors of a padded batch may take."""
SPARE = 1 << 20
"""Bytes that they may take beside that."""


class Stacker:
    """Stacks the requests of one contract; any thread may use it."""

    def __init__(self, contract: Contract, mode: object) -> None:
        self._request = contract.request
        self._fields = [field.name for field in contract.signature.inputs]
        self._tensors = [f.name for f in contract.signature.inputs if f.kind == "tensor"]
        self._pads = mode == "pad"
        self._buffers = Buffers()

    def kind(self, request: Any) -> Hashable:
        """Return what must be equal for requests to be stacked together."""
        shapes = self.shapes(request)
        if self._pads:
            return tuple((name, len(shape)) for name, shape in shapes.items())
        return tuple(shapes.items())

    def shapes(self, request: Any) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of the request's tensors; one that is None has none."""
        tensors = {name: self._value(request, name) for name in self._tensors}
        return {name: array.shape for name, array in tensors.items() if array is not None}

    def parts(self, requests: Sequence[Any]) -> list[list[int]]:
        """Return the places of ``requests``, of one kind, parted so that padding wastes little."""
        if not self._pads or len(requests) < 2:
            return [list(range(len(requests)))]
        found: list[tuple[Padded, list[int]]] = []
        for place, request in enumerate(requests):
            arrays = [self._value(request, name) for name in self._tensors]
            arrays = [array for array in arrays if array is not None]
            for padded, places in found:
                if padded.join(arrays):
                    places.append(place)
                    break
            else:
                found.append((Padded(arrays), [place]))
        return [places for _, places in found]

    def stack(self, requests: Sequence[Any]) -> Any:
        """Return requests of one kind as what ``predict_batch`` is given."""
        if self._request is None:
            return self._stacked(requests)
        # Not by calling the class: its own checks are meant for the values of one request.
        made = copy.copy(requests[0])
        put = msgspec.structs.force_setattr if isinstance(made, msgspec.Struct) else _put
        for name in self._fields:
            values = [getattr(request, name) for request in requests]
            put(made, name, self._stacked(values) if name in self._tensors else values)
        return made

    def made(self, array: Any) -> bool:
        """Say whether ``array`` is memory that requests are stacked in."""
        return self._buffers.holds(array)

    def _value(self, request: Any, name: str) -> Any:
        return request if self._request is None else getattr(request, name)

    def _stacked(self, arrays: Sequence[Any]) -> Array | None:
        if arrays[0] is None:
            return None
        shapes = {array.shape for array in arrays}
        largest = tuple(map(max, zip(*shapes, strict=True)))
        stacked = self._buffers.array((len(arrays), *largest), arrays[0].dtype)
        if len(shapes) > 1:
            stacked[...] = 0
        if not largest:
            stacked[:] = arrays
            return stacked
        for number, array in enumerate(arrays):
            stacked[number][tuple(map(slice, array.shape))] = array
        return stacked


def _put(made: Any, name: str, value: Any) -> None:
    object.__setattr__(made, name, value)  # Also where the class is frozen.


class Padded:
    """How large the stacked tensors of a part of a batch are, and how much of that is theirs."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._largest = [array.shape for array in arrays]
        self._count = 1
        self._bytes = sum(array.nbytes for array in arrays)

    def join(self, arrays: Sequence[Array]) -> bool:
        """Add a request's tensors, unless too much would be padding; say whether they are in."""
        largest = [
            tuple(map(max, old, array.shape))
            for old, array in zip(self._largest, arrays, strict=True)
        ]
        count = self._count + 1
        real = self._bytes + sum(array.nbytes for array in arrays)
        padded = count * sum(
            prod(shape) * array.itemsize for shape, array in zip(largest, arrays, strict=True)
        )
        if padded > WASTE * real + SPARE:
            return False
        self._largest, self._count, self._bytes = largest, count, real
        return True


class Buffers:
    """Memory for arrays, used again when nothing refers to what was made of it any more."""

    def __init__(self) -> None:
        self._roots: list[NDArray[np.uint8]] = []
        self._lock = Lock()

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array whose values are undefined."""
        size = prod(shape) * dtype.itemsize
        with self._lock:
            return self._root(size)[:size].view(dtype).reshape(shape)

    def holds(self, array: Any) -> bool:
        """Say whether ``array`` is the whole of memory that is kept here."""
        with self._lock:
            return any(array is root for root in self._roots)

    def _root(self, size: int) -> NDArray[np.uint8]:
        # Every view of a root, however it was made, holds a reference to it.
        roots = self._roots
        unused = [n for n in range(len(roots)) if references(roots, n) == ALONE]
        for number in unused:
            if len(roots[number]) >= size:
                return roots[number]
        if unused:
            del roots[unused[0]]
        root = np.empty(size, np.uint8)
        if len(roots) < BUFFERS:
            roots.append(root)
        return root
