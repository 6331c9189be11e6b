"""Read the Latin and Chinese text of a picture, on the CPU and without a network."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve import Example, Image, Wrapper

if TYPE_CHECKING:
    from rapidocr import RapidOCR

__all__ = ["EXAMPLE", "Line", "Ocr", "OcrConfig", "Page"]

EXAMPLE = Path(__file__).with_name("example.jpg")
"""A tea house's sign, drawn by scripts/draw_example.py."""

# What rapidocr's wheel bundles; naming the files keeps it from looking for others to download.
MODELS = {
    "Det.model_path": "PP-OCRv6_det_small.onnx",
    "Cls.model_path": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec.model_path": "PP-OCRv6_rec_small.onnx",
}
NARROWEST = 2

Confidence = Annotated[float, msgspec.Meta(ge=0, le=1)]


class OcrConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator may set for this model."""

    min_confidence: Confidence = 0.5
    """Leave out the lines that are less certain, unless the request says otherwise."""
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    """CPU threads for one picture."""


class Line(msgspec.Struct, frozen=True):
    """One line of text: its corners in pixels, clockwise from where the text starts at the top."""

    text: str
    confidence: Confidence
    polygon: Annotated[list[tuple[float, float]], msgspec.Meta(min_length=4, max_length=4)]


class Page(msgspec.Struct, frozen=True):
    """All text of a picture, and where it stands; lines go from top to bottom."""

    text: str
    lines: list[Line]


class Ocr(Wrapper):
    """Read the text of a picture: every line with its place and confidence."""

    examples = (Example(name="sign", inputs={"image": EXAMPLE}),)
    _config: OcrConfig
    _engine: "RapidOCR"

    def load(self, config: OcrConfig) -> None:
        """Open the three models that rapidocr's wheel contains."""
        import cv2
        import rapidocr

        let_records_through()
        cv2.setNumThreads(config.threads)
        folder = Path(rapidocr.__file__).parent / "models"
        params: dict[str, Any] = {key: str(folder / name) for key, name in MODELS.items()}
        params["EngineConfig.onnxruntime.intra_op_num_threads"] = config.threads
        params["Global.text_score"] = 0.0  # each request has its own threshold
        params["Global.log_level"] = "error"  # a picture without text is worth no warning
        self._config = config
        self._engine = rapidocr.RapidOCR(params=params)
        self._engine(EXAMPLE)  # it opens its models only when a picture needs them

    def predict(self, image: Image, min_confidence: Confidence | None = None) -> Page:
        """Find the lines of text in a picture and read them."""
        floor = self._config.min_confidence if min_confidence is None else min_confidence
        lines = [line for line in self._read(image) if line.confidence >= floor]
        return Page(text="\n".join(line.text for line in lines), lines=lines)

    def _read(self, image: NDArray[np.uint8]) -> list[Line]:
        from rapidocr.utils.output import RapidOCROutput

        found = self._engine(widened(image[..., ::-1]))  # it wants BGR
        if not isinstance(found, RapidOCROutput) or found.boxes is None:
            return []
        height, width = image.shape[:2]
        boxes = np.clip(found.boxes, 0, (width, height)).tolist()
        return [
            Line(text, min(float(score), 1.0), [(x, y) for x, y in box])
            for text, score, box in zip(found.txts or (), found.scores or (), boxes, strict=True)
        ]


def widened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad a strip with black, right or below, until its sides are at most 1 to `NARROWEST`.

    rapidocr enlarges a picture until its short side suits the model: without this it refuses some
    strips, takes gigabytes for others, and tears the letters of a single line apart.
    """
    height, width = image.shape[:2]
    least = max(height, width) // NARROWEST
    below, right = max(0, least - height), max(0, least - width)
    return np.ascontiguousarray(np.pad(image, ((0, below), (0, right), (0, 0))))


def let_records_through() -> None:
    """Undo rapidocr's log handler, which prints in colour: its records belong to the host."""
    logger = logging.getLogger("RapidOCR")
    logger.handlers.clear()
    logger.propagate = True
