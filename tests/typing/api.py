"""What plugin authors write; mypy and pyright must accept it in their strictest modes."""

# pyright: strict

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve import (
    Audio,
    AudioClip,
    BadRequest,
    Blob,
    Example,
    Image,
    Tensor,
    Text,
    Video,
    Wrapper,
    current,
    current_batch,
)

Boxes = Annotated[NDArray[np.float32], Tensor("float32", (-1, 4))]


class Mode(Enum):
    FAST = "fast"
    GOOD = "good"


class Config(msgspec.Struct, frozen=True):
    weights: str = "small"


class Found(msgspec.Struct):
    label: str
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass
class Item:
    text: str
    weight: float = 1.0


class Detector(Wrapper):
    slots = 2
    timeout = 5.0
    queue_size = 8
    examples = (Example(inputs={"image": Path("a.png")}, output=[], tolerance=0.1),)

    def load(self, config: Config) -> None:
        self.weights = config.weights

    def predict(
        self,
        image: Image,
        mode: Mode = Mode.GOOD,
        style: Literal["a", "b"] = "a",
        least: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5,
    ) -> list[Found]:
        height, width, _ = image.shape
        if height < 8:
            raise BadRequest("too small")
        context = current()
        if context.cancelled or (context.remaining or 1.0) < 0:
            return []
        return [Found(f"{self.weights} {mode} {style} {width} {context.model}", least)]

    def unload(self) -> None:
        del self.weights


class Media(Wrapper):
    def predict(self, text: Text, blob: Blob, audio: Audio, video: Video) -> Audio:
        count = len(text) + len(bytes(blob)) + len(video.media_type)
        return AudioClip(audio.samples[:, :count], audio.rate)


class Tensors(Wrapper):
    def predict(self, boxes: Boxes) -> Boxes:
        return (boxes * 2).astype(np.float32)


class Streaming(Wrapper):
    def predict(self, text: Text) -> Iterator[Text]:
        yield from text.split()


class Awaited(Wrapper):
    async def predict(self, text: Text) -> Text:
        return text


class AwaitedStream(Wrapper):
    async def predict(self, text: Text) -> AsyncIterator[Text]:
        for word in text.split():
            yield word


class Batched(Wrapper):
    def predict_batch(self, requests: list[Item]) -> list[float]:
        late = [context.cancelled for context in current_batch()]
        return [0.0 if gone else item.weight for item, gone in zip(requests, late, strict=True)]


class Talking(Wrapper):
    def session(self, inputs: Iterator[Item]) -> Iterator[Text]:
        for item in inputs:
            yield item.text
