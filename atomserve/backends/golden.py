"""Compare what an example promised with what the wrapper answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from atomserve.wrapper import Example


def check_answer(example: Example, answer: Any) -> None:
    """Compare ``answer`` with the example's output, if it names one.

    Raises:
        ValueError: they differ; the message says where.
    """
    if example.output is not msgspec.UNSET:
        _compare(example.output, answer, example.tolerance, "$")


def _compare(expected: Any, found: Any, tolerance: float, path: str) -> None:
    expected, found = _plain(expected), _plain(found)
    if isinstance(expected, np.ndarray) or isinstance(found, np.ndarray):
        _compare_arrays(np.asarray(expected), np.asarray(found), tolerance, path)
    elif isinstance(expected, Mapping) and isinstance(found, Mapping):
        if expected.keys() != found.keys():
            raise ValueError(f"{path}: expected keys {sorted(expected)}, found {sorted(found)}")
        for key, value in expected.items():
            _compare(value, found[key], tolerance, f"{path}.{key}")
    elif _is_list(expected) and _is_list(found):
        if len(expected) != len(found):
            raise ValueError(f"{path}: expected {len(expected)} items, found {len(found)}")
        for index, value in enumerate(expected):
            _compare(value, found[index], tolerance, f"{path}[{index}]")
    elif _is_number(expected) and _is_number(found):
        if not abs(expected - found) <= tolerance:
            raise ValueError(f"{path}: expected {expected!r} ± {tolerance}, found {found!r}")
    elif expected != found:
        raise ValueError(f"{path}: expected {expected!r:.80}, found {found!r:.80}")


def _compare_arrays(expected: Any, found: Any, tolerance: float, path: str) -> None:
    if expected.shape != found.shape:
        raise ValueError(f"{path}: expected shape {expected.shape}, found {found.shape}")
    off = np.abs(expected.astype(np.float64) - found.astype(np.float64))
    if off.size and not off.max() <= tolerance:
        raise ValueError(f"{path}: arrays differ by up to {off.max():g}, tolerance {tolerance:g}")


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
