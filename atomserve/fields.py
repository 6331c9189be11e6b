"""The annotated types that a wrapper's inputs and outputs may have beyond plain Python ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from atomserve.specs import AudioSpec, BlobSpec, ImageSpec, TextSpec, VideoSpec


@dataclass(frozen=True, eq=False)
class AudioClip:
    """Sound: ``samples`` is float32 of shape (channels, frames) in [-1, 1], ``rate`` in hertz."""

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True, eq=False)
class VideoClip:
    """A film as it was sent: its encoded bytes and their media type."""

    data: memoryview | bytes
    media_type: str = VideoSpec.media_type


Text = Annotated[str, TextSpec()]
Blob = Annotated[memoryview, BlobSpec()]
Image = Annotated[NDArray[np.uint8], ImageSpec()]
Audio = Annotated[AudioClip, AudioSpec()]
Video = Annotated[VideoClip, VideoSpec()]
