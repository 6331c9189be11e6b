"""Examples are checked and written as a client's requests are."""

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from contracts import PICTURE, Box, Held, codec_of, png, same

from atomserve import Audio, AudioClip, Tensor
from atomserve.engine.jobs import Payload


def test_an_example_gives_a_file_by_its_path_or_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    for given_image in (path, png(), np.zeros((3, 4, 3), "uint8")):
        image, n, *_ = PICTURE.example_values({"image": given_image, "n": 7})
        assert (image.shape, n) == ((3, 4, 3), 7)
    written = PICTURE.example_json({"image": path, "n": 7})
    assert written == {"image": b64encode(png()).decode(), "n": 7}
    assert PICTURE.decode(Payload(body=msgspec.json.encode(written)))[1] == 7


def test_an_example_is_written_as_a_client_would(tmp_path: Path) -> None:
    held = Held(
        [Box(np.ones((1, 2), "float32"), "a", 0.5)], np.zeros((1, 2, 3), "uint8"), {"k": b"x"}
    )
    echo = codec_of("dataclass", Held)
    (found,) = echo.example_values({"x": held})
    assert type(found) is Held
    assert found.boxes[0].corners.tolist() == [[1, 1]]
    written = msgspec.json.encode(echo.example_json({"x": held}))
    assert same(echo.decode(Payload(body=written))[0], found)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"image": b"", "n": 7}, "image"),
        ({"n": 7}, "missing"),
        ({"image": png(), "k": 1}, "unknown input 'k'"),
        ({"image": png(), "n": "x"}, r"\$\.n"),
        ({"image": Path("nowhere.png")}, "nowhere"),
        ({"image": np.zeros((2, 2, 3))}, "expected encoded bytes"),
        ({"image": 5}, "expected encoded bytes"),
    ],
)
def test_an_example_that_does_not_fit_is_told(inputs: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PICTURE.example_values(inputs)


def test_examples_take_clips_and_arrays_as_they_are() -> None:
    clip = AudioClip(np.zeros((1, 5), "float32"), 8000)
    assert codec_of("audio", Audio).example_values({"x": clip}) == (clip,)
    tensor = codec_of("tensor of int8", Annotated[np.ndarray, Tensor("int8")])
    assert tensor.example_values({"x": [1, 2]})[0].tolist() == [1, 2]
    assert tensor.example_json({"x": np.array([1], "int8")}) == {"x": [1]}
    with pytest.raises(ValueError, match="int8"):
        tensor.example_values({"x": np.zeros(2)})
