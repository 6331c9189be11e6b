import io
import time
import tomllib
from importlib import import_module
from pathlib import Path

import anyio
import msgspec
import numpy as np
import PIL.Image
import pytest
from atomserve_echo import (
    Echo,
    EchoAsync,
    EchoAudio,
    EchoBlob,
    EchoImage,
    EchoPoints,
    EchoSession,
    EchoSleep,
    EchoStream,
    EchoTensor,
    EchoText,
    EchoTiny,
    EchoVideo,
    Everything,
    Label,
    Level,
    Point,
    Shape,
    Token,
)
from atomserve_echo.samples import FILM, PICTURE, SOUND

from atomserve import AudioClip, Wrapper
from atomserve.fields import VideoClip
from atomserve.signature import read_contract

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
ENTRIES = PROJECT["project"]["entry-points"]["atomserve.plugins"]


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_point_names_a_documented_wrapper_with_examples(name: str) -> None:
    module, _, attribute = ENTRIES[name].partition(":")
    wrapper = getattr(import_module(module), attribute)
    signature = read_contract(wrapper).signature
    assert signature.description.endswith(".")
    names = {field.name for field in signature.inputs}
    assert wrapper.examples
    assert all(set(example.inputs) <= names for example in wrapper.examples)


def test_the_golden_answers_are_right() -> None:
    for wrapper in (EchoTiny, EchoText, EchoSleep):
        for example in wrapper.examples:
            assert wrapper().predict(**example.inputs) == example.output


def test_every_wrapper_has_an_entry_point() -> None:
    module = import_module("atomserve_echo")
    wrappers = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Wrapper) and value is not Wrapper
    }
    assert wrappers == {target.partition(":")[2] for target in ENTRIES.values()}


def test_echo_fills_in_the_defaults() -> None:
    expected = Everything("", 0.0, 0, False, "plain", Level.LOW, None, [], None)
    assert Echo().predict() == expected


def test_echo_returns_every_plain_value() -> None:
    given = {
        "text": "a",
        "number": 1.5,
        "count": 2,
        "flag": True,
        "mode": "loud",
        "level": Level.HIGH,
        "shape": Shape("edge", [Point(1.0), Point(2.0, 3.0)]),
        "labels": [Label("cat", 0.5)],
        "notes": {"k": "v"},
    }
    answer = Echo().predict(**given)
    assert msgspec.structs.asdict(answer) == given
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Everything) == answer


def test_plain_values_come_back() -> None:
    assert EchoTiny().predict(1.5) == 1.5
    assert EchoText().predict("世界") == "世界"


def test_a_blob_comes_back_uncopied_or_repeated() -> None:
    data = memoryview(b"ab")
    assert EchoBlob().predict(data) is data
    assert EchoBlob().predict(data, times=3) == b"ababab"
    assert EchoBlob().predict(data, times=0) == b""


def test_a_picture_comes_back_as_it_was_or_turned() -> None:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(EchoImage().predict(image), image)
    assert np.array_equal(EchoImage().predict(image, turns=1), np.rot90(image))


def test_media_and_tensors_come_back_themselves() -> None:
    clip = AudioClip(np.zeros((2, 16), np.float32), 8000)
    film = VideoClip(FILM)
    tensor = np.ones((1, 2, 3), np.float32)
    points = np.ones((4, 3), np.int64)
    assert EchoAudio().predict(clip) is clip
    assert EchoVideo().predict(film) is film
    assert EchoTensor().predict(tensor) is tensor
    assert EchoPoints().predict(points) is points


def test_a_stream_counts_its_tokens() -> None:
    tokens = list(EchoStream().predict("hi", count=2))
    assert tokens == [Token(0, "hi"), Token(1, "hi")]
    assert list(EchoStream().predict("hi", count=0)) == []


def test_a_session_answers_each_message_before_it_asks_for_the_next() -> None:
    asked = []

    def messages():
        for text in ("a", "b"):
            asked.append(text)
            yield text

    answers = EchoSession().session(messages())
    assert (next(answers), asked) == ("a", ["a"])
    assert (next(answers), asked) == ("b", ["a", "b"])


def test_the_async_echo_waits_then_answers() -> None:
    assert anyio.run(EchoAsync().predict, "hi", 0.01) == "hi"


def test_sleep_blocks_for_as_long_as_asked() -> None:
    start = time.monotonic()
    assert EchoSleep().predict(0.05) == 0.05
    assert time.monotonic() - start >= 0.05


def test_the_sample_picture_is_a_png_of_six_colours() -> None:
    with PIL.Image.open(io.BytesIO(PICTURE)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert picture.format == "PNG"
    assert pixels.shape == (2, 3, 3)
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}) == 6


def test_the_sample_sound_is_a_stereo_wav() -> None:
    soundfile = pytest.importorskip("soundfile")
    samples, rate = soundfile.read(io.BytesIO(SOUND), dtype="float32")
    assert (samples.shape, rate) == ((16, 2), 8000)
    assert samples[:, 0].tolist() == [0.5, 0.5, 0.5, 0.5, -0.5, -0.5, -0.5, -0.5] * 2
