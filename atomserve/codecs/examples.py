"""The inputs of a wrapper's examples: Python values, checked as a client's would be."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from atomserve.codecs.answers import plain
from atomserve.codecs.inputs import Input
from atomserve.codecs.reading import Reader
from atomserve.codecs.refusals import FOREIGN, at_path, refusal
from atomserve.codecs.tensors import checked_array, from_nested
from atomserve.codecs.wire import write_json
from atomserve.errors import AtomError, Invalid
from atomserve.fields import AudioClip, VideoClip
from atomserve.media.sources import Sources
from atomserve.schemas import Marker, class_fields, mark
from atomserve.signature import Contract
from atomserve.specs import Spec, Tensor

ENCODED = (Path, bytes, bytearray, memoryview)


def example_values(inputs: Mapping[str, Input], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check an example's inputs and decode what is given encoded.

    Raises:
        AtomError: a name is unknown, a value does not fit, a file cannot be read.
    """
    values = {}
    for name, value in given.items():
        if name not in inputs:
            raise Invalid(f"unknown input {name!r}; expected of: {', '.join(inputs)}")
        try:
            values[name] = msgspec.convert(
                _convertible(value), inputs[name].type, dec_hook=_read_example
            )
        except FOREIGN as exc:
            raise refusal(exc, at=inputs[name].path) from exc
        except (AtomError, OSError) as exc:
            raise at_path(Invalid, inputs[name].path, exc) from exc
    return values


def example_json(
    contract: Contract, given: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Write an example's inputs in JSON; encoded media keep their bytes."""
    written = {}
    for field in contract.signature.inputs:
        name, value = field.name, given.get(field.name)
        if name not in given:
            continue
        if isinstance(value, ENCODED) and field.kind not in ("json", "text", "tensor"):
            written[name] = b64encode(_bytes(value)).decode()
            continue
        spread = contract.spreads.get(name)
        value = spread(values[name], write_json) if spread is not None else values[name]
        written[name] = msgspec.to_builtins(value, enc_hook=plain)
    return written


def _bytes(value: Any) -> bytes:
    return value.read_bytes() if isinstance(value, Path) else bytes(value)


def _convertible(value: Any) -> Any:  # noqa: PLR0911 - a table
    """Take apart what holds fields, so that msgspec meets each of them."""
    if isinstance(value, Path):
        return value.read_bytes()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (AudioClip, VideoClip, np.ndarray)):
        return value
    if isinstance(value, (list, tuple)):
        return [_convertible(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _convertible(each) for key, each in value.items()}
    if (fields := class_fields(type(value))) and mark(type(value)).spread is not None:
        return {name: _convertible(getattr(value, name)) for name, *_ in fields}
    return value


def _read_example(marker: type[Marker], found: Any) -> Any:
    spec = marker.spec
    if isinstance(found, ENCODED):
        return Reader(Sources()).from_bytes(spec, memoryview(bytes(found)))
    if isinstance(spec, Tensor):
        return (
            checked_array(spec, found)
            if isinstance(found, np.ndarray)
            else from_nested(spec, found)
        )
    if _decoded(spec, found):
        return found
    raise ValueError(f"{type(found).__name__}; expected encoded bytes or the path of a file")


def _decoded(spec: Spec, found: Any) -> bool:
    if isinstance(found, np.ndarray):
        shape = found.shape
        return spec.kind == "image" and found.dtype == np.uint8 and shape[2:] == (3,)
    wanted = {"audio": AudioClip, "video": VideoClip}.get(spec.kind)
    return wanted is not None and isinstance(found, wanted)
