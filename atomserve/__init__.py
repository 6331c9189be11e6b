"""Serve blocking Python inference code as a fast, typed, observable HTTP service."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomserve.context import current, current_batch
    from atomserve.errors import BadRequest
    from atomserve.fields import Audio, AudioClip, Blob, Image, Text, Video
    from atomserve.specs import Tensor
    from atomserve.wrapper import Example, Wrapper

# Loaded on first use: the supervisor shares this package and must stay free of numpy.
_HOMES = {
    "Audio": "fields",
    "AudioClip": "fields",
    "BadRequest": "errors",
    "Blob": "fields",
    "Example": "wrapper",
    "Image": "fields",
    "Tensor": "specs",
    "Text": "fields",
    "Video": "fields",
    "Wrapper": "wrapper",
    "current": "context",
    "current_batch": "context",
}

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
    "current_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'atomserve' has no attribute {name!r}")
    value = getattr(import_module(f"atomserve.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
