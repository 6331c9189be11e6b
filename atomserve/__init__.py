"""Serve blocking Python inference code as a fast, typed, observable HTTP service."""

from atomserve.context import current
from atomserve.errors import BadRequest
from atomserve.fields import Audio, AudioClip, Blob, Image, Tensor, Text, Video
from atomserve.wrapper import Example, Wrapper

__all__ = [
    "Audio",
    "AudioClip",
    "BadRequest",
    "Blob",
    "Example",
    "Image",
    "Tensor",
    "Text",
    "Video",
    "Wrapper",
    "current",
]
