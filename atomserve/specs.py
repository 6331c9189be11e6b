"""What the annotations of a wrapper's inputs and outputs say, as plain values: no numpy in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Kind = Literal["json", "text", "blob", "image", "audio", "video", "tensor"]

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)


@dataclass(frozen=True)
class Spec:
    """What an annotation says beyond its Python type; stands in ``Annotated[...]`` metadata."""

    kind: ClassVar[Kind]
    media_type: ClassVar[str] = ""


@dataclass(frozen=True)
class TextSpec(Spec):
    """Text as it is, in a form part as a text part."""

    kind = "text"
    media_type = "text/plain"


@dataclass(frozen=True)
class BlobSpec(Spec):
    """Bytes as sent."""

    kind = "blob"
    media_type = "application/octet-stream"


@dataclass(frozen=True)
class ImageSpec(Spec):
    """An encoded picture outside, an RGB ``uint8`` array of shape (height, width, 3) inside."""

    kind = "image"
    media_type = "image/png"


@dataclass(frozen=True)
class AudioSpec(Spec):
    """An encoded sound outside, an `AudioClip` inside."""

    kind = "audio"
    media_type = "audio/wav"


@dataclass(frozen=True)
class VideoSpec(Spec):
    """An encoded film outside, a `VideoClip` (still encoded) inside."""

    kind = "video"
    media_type = "video/mp4"


@dataclass(frozen=True)
class Tensor(Spec):
    """A numeric array: ``Annotated[np.ndarray, Tensor("float32", (-1, 3))]``.

    ``shape`` holds -1 for each free dimension; ``None`` allows any rank. The wrapper sees a
    read-only array unless ``writable`` asks for a copy of its own.

    Raises:
        ValueError: the dtype is not one of `DTYPES`, or a dimension is neither -1 nor >= 0.
    """

    kind = "tensor"
    media_type = "application/x-npy"

    dtype: str
    shape: tuple[int, ...] | None = None
    writable: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"Tensor dtype {self.dtype!r}: expected one of {', '.join(DTYPES)}")
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))
            if any(type(n) is not int or n < -1 for n in self.shape):
                raise ValueError(f"Tensor shape {self.shape!r}: expected sizes >= 0 or -1 (free)")


def spec_of(annotation: Any) -> Spec | None:
    """Return the field that ``annotation`` (an ``Annotated[...]``) names, or None."""
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Spec):
            return extra
    return None
