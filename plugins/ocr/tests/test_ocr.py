import subprocess
import sys
from collections.abc import Callable

import msgspec
import numpy as np
import PIL.Image
import pytest
from atomserve_ocr import EXAMPLE, Ocr, OcrConfig

from atomserve.signature import read_contract

SIGN = [
    "原子茶馆",
    "ATOM TEA HOUSE",
    "现泡好茶",
    "Freshly brewed since 1998",
    "营业时间09:00-21:30",
]


@pytest.fixture(scope="module")
def ocr() -> Ocr:
    wrapper = Ocr()
    wrapper.load(OcrConfig())
    return wrapper


@pytest.fixture(scope="module")
def sign() -> np.ndarray:
    with PIL.Image.open(EXAMPLE) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    pixels.flags.writeable = False
    return pixels


def white(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def test_every_line_of_the_example_is_read_exactly(ocr: Ocr, sign: np.ndarray) -> None:
    page = ocr.predict(sign)
    assert [line.text for line in page.lines] == SIGN
    assert page.text == "\n".join(SIGN)
    assert all(line.confidence > 0.9 for line in page.lines)


def test_the_same_picture_gives_the_same_page(ocr: Ocr, sign: np.ndarray) -> None:
    assert ocr.predict(sign) == ocr.predict(sign)


def test_a_polygon_surrounds_its_line_clockwise(ocr: Ocr, sign: np.ndarray) -> None:
    height, width = sign.shape[:2]
    for line in ocr.predict(sign).lines:
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = line.polygon
        assert 0 <= min(x0, x3) < max(x1, x2) <= width
        assert 0 <= min(y0, y1) < max(y2, y3) <= height


def test_colours_arrive_as_they_do_when_rapidocr_opens_the_file(ocr: Ocr, sign: np.ndarray) -> None:
    found = ocr._engine(EXAMPLE)
    assert tuple(line.confidence for line in ocr.predict(sign).lines) == found.scores
    assert tuple(line.confidence for line in ocr.predict(sign[..., ::-1]).lines) != found.scores


def test_the_request_may_ask_for_more_or_less_certainty(ocr: Ocr, sign: np.ndarray) -> None:
    every = ocr.predict(sign, min_confidence=0.0).lines
    floor = sorted(line.confidence for line in every)[2]
    fewer = ocr.predict(sign, min_confidence=floor).lines
    assert 0 < len(fewer) < len(every)
    assert all(line.confidence >= floor for line in fewer)


def test_the_configured_certainty_is_the_default(sign: np.ndarray) -> None:
    strict = Ocr()
    strict.load(OcrConfig(min_confidence=1.0))
    assert strict.predict(sign).lines == []


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (480, 640)])
def test_a_blank_picture_has_no_lines(ocr: Ocr, size: tuple[int, int]) -> None:
    page = ocr.predict(white(*size))
    assert page.text == ""
    assert page.lines == []


@pytest.mark.parametrize("make", [white, noise])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 5000), (5000, 1), (31, 700), (2000, 60)])
def test_no_shape_of_picture_is_too_odd(
    ocr: Ocr, make: Callable[[int, int], np.ndarray], size: tuple[int, int]
) -> None:
    for line in ocr.predict(make(*size), min_confidence=0.0).lines:
        assert all(0 <= x <= size[1] and 0 <= y <= size[0] for x, y in line.polygon)


def test_a_line_of_text_alone_stays_one_line(ocr: Ocr, sign: np.ndarray) -> None:
    strip = sign[588:682, 360:1016]
    assert [line.text for line in ocr.predict(strip).lines] == ["Freshly brewed since 1998"]


def test_a_big_picture_has_its_polygons_at_its_own_scale(ocr: Ocr, sign: np.ndarray) -> None:
    big = sign.repeat(4, axis=0).repeat(4, axis=1)
    page = ocr.predict(big)
    assert [line.text for line in page.lines] == SIGN
    for line, small in zip(page.lines, ocr.predict(sign).lines, strict=True):
        assert np.allclose(line.polygon, np.array(small.polygon) * 4, atol=100)


def test_a_page_is_plain_json(ocr: Ocr, sign: np.ndarray) -> None:
    page = ocr.predict(sign)
    assert msgspec.json.decode(msgspec.json.encode(page), type=type(page)) == page


@pytest.mark.parametrize("bad", [{"threads": 0}, {"min_confidence": 1.5}, {"thread": 2}])
def test_a_mistake_in_the_configuration_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, OcrConfig)


def test_the_contract_names_the_picture_as_the_one_body() -> None:
    contract = read_contract(Ocr)
    assert contract.config is OcrConfig
    assert contract.signature.binary_input is contract.signature.inputs[0]
    assert [field.name for field in contract.signature.inputs] == ["image", "min_confidence"]
    assert all(set(example.inputs) == {"image"} for example in Ocr.examples)


QUIET = """
import logging, sys
root = logging.getLogger()
before = (list(root.handlers), root.level)
def watch(event, arguments):
    network = event in {"socket.connect", "socket.sendto", "socket.getaddrinfo"}
    if network or (event == "open" and set(arguments[1] or "") & set("wax+")):
        raise SystemExit(f"{event} {arguments}")
import numpy
from atomserve_ocr import Ocr, OcrConfig
heavy = {"cv2", "onnxruntime", "rapidocr"} & set(sys.modules)
assert not heavy, heavy
sys.addaudithook(watch)
ocr = Ocr()
ocr.load(OcrConfig())
ocr.predict(numpy.zeros((40, 40, 3), "uint8"))
assert (root.handlers, root.level) == before
"""


def test_loading_uses_no_network_writes_no_file_and_says_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-B", "-c", QUIET], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
