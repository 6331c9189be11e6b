"""Answer with what was asked: one small wrapper for each type and each way of calling."""

import enum
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import anyio
import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve import Audio, Blob, Example, Image, Tensor, Text, Video, Wrapper
from atomserve_echo.samples import FILM, PICTURE, SOUND

__all__ = [
    "Echo",
    "EchoAsync",
    "EchoAudio",
    "EchoBlob",
    "EchoImage",
    "EchoPoints",
    "EchoSession",
    "EchoSleep",
    "EchoStream",
    "EchoTensor",
    "EchoText",
    "EchoTiny",
    "EchoVideo",
    "Everything",
    "Label",
    "Level",
    "Point",
    "Shape",
    "Token",
]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
AnyTensor = Annotated[NDArray[np.float32], Tensor("float32")]
Points = Annotated[NDArray[np.int64], Tensor("int64", (-1, 3))]


class Level(enum.Enum):
    """How loud."""

    LOW = "low"
    HIGH = "high"


class Point(msgspec.Struct, frozen=True):
    """A place in the plane."""

    x: float
    y: float = 0.0


class Shape(msgspec.Struct, frozen=True):
    """A name with its corners."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    corners: list[Point] = []


@dataclass
class Label:
    """A word with its score."""

    word: str
    score: Share = 1.0


class Everything(msgspec.Struct, frozen=True):
    """What `Echo` was given, defaults filled in."""

    text: Text
    number: float
    count: int
    flag: bool
    mode: Literal["plain", "loud"]
    level: Level
    shape: Shape | None
    labels: list[Label]
    notes: dict[str, str] | None


class Echo(Wrapper):
    """Answer with every plain value of the request, defaults filled in."""

    examples = (
        Example(name="defaults", inputs={}),
        Example(
            name="all",
            inputs={
                "text": "hello 世界",
                "number": 0.5,
                "count": 3,
                "flag": True,
                "mode": "loud",
                "level": "high",
                "shape": {"name": "corner", "corners": [{"x": 1.0}, {"x": 2.0, "y": 3.0}]},
                "labels": [{"word": "cat", "score": 0.25}],
                "notes": {"colour": "red"},
            },
        ),
    )

    def predict(
        self,
        *,
        text: Text = "",
        number: Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)] = 0.0,
        count: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0,
        flag: bool = False,
        mode: Literal["plain", "loud"] = "plain",
        level: Level = Level.LOW,
        shape: Shape | None = None,
        labels: list[Label] | None = None,
        notes: dict[str, str] | None = None,
    ) -> Everything:
        return Everything(
            text=text,
            number=number,
            count=count,
            flag=flag,
            mode=mode,
            level=level,
            shape=shape,
            labels=labels or [],
            notes=notes,
        )


class EchoTiny(Wrapper):
    """Answer with one number: all that costs time here is the way there and back."""

    examples = (Example(inputs={"x": 1.5}, output=1.5),)

    def predict(self, x: float) -> float:
        return x


class EchoText(Wrapper):
    """Answer with the text."""

    examples = (Example(inputs={"text": "hello 世界"}, output="hello 世界"),)

    def predict(self, text: Text) -> Text:
        return text


class EchoBlob(Wrapper):
    """Answer with the bytes, `times` over."""

    examples = (Example(inputs={"data": b"\x00\xff atom"}),)

    def predict(self, data: Blob, times: Annotated[int, msgspec.Meta(ge=0, le=16)] = 1) -> Blob:
        return data if times == 1 else memoryview(bytes(data) * times)


class EchoImage(Wrapper):
    """Answer with the picture, turned left by `turns` quarters."""

    examples = (Example(inputs={"image": PICTURE}),)

    def predict(self, image: Image, turns: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0) -> Image:
        return np.rot90(image, turns)


class EchoAudio(Wrapper):
    """Answer with the sound."""

    examples = (Example(inputs={"audio": SOUND}),)

    def predict(self, audio: Audio) -> Audio:
        return audio


class EchoVideo(Wrapper):
    """Answer with the film, still encoded as it came."""

    examples = (Example(inputs={"video": FILM}),)

    def predict(self, video: Video) -> Video:
        return video


class EchoTensor(Wrapper):
    """Answer with the float32 tensor, of any rank and shape."""

    examples = (Example(inputs={"tensor": [[1.0, 2.5], [-3.0, 0.0]]}),)

    def predict(self, tensor: AnyTensor) -> AnyTensor:
        return tensor


class EchoPoints(Wrapper):
    """Answer with the int64 tensor of rows of three."""

    examples = (Example(inputs={"points": [[1, 2, 3], [4, 5, 6]]}),)

    def predict(self, points: Points) -> Points:
        return points


class Token(msgspec.Struct, frozen=True):
    """One item of a stream."""

    index: int
    text: str


class EchoStream(Wrapper):
    """Answer with the text `count` times as a stream, `delay` seconds before each."""

    examples = (Example(inputs={"text": "hello", "count": 2}),)

    def predict(
        self,
        text: str,
        count: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3,
        delay: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0,
    ) -> Iterator[Token]:
        for index in range(count):
            time.sleep(delay)
            yield Token(index, text)


class EchoSession(Wrapper):
    """Answer each message of a session with itself, at once."""

    examples = (Example(inputs={"input": "hello"}),)

    def session(self, inputs: Iterator[str]) -> Iterator[str]:
        yield from inputs


class EchoAsync(Wrapper):
    """Answer with the text from an ``async def``, after `delay` seconds; several at once."""

    capacity = 16
    examples = (Example(inputs={"text": "hello"}, output="hello"),)

    async def predict(self, text: str, delay: Seconds = 0.0) -> str:
        await anyio.sleep(delay)
        return text


class EchoSleep(Wrapper):
    """Answer after sleeping `seconds`, blocking the slot as slow model code does."""

    timeout = 3660.0
    examples = (Example(inputs={"seconds": 0.0}, output=0.0),)

    def predict(self, seconds: Seconds = 1.0) -> float:
        time.sleep(seconds)
        return seconds
