"""Read the Latin and Chinese text of a picture."""

import json
from pathlib import Path

from aiges.core.types import DataText, Once
from aiges.dto import DataListCls, Response, ResponseData
from aiges.sdk import ImageBodyField, StringBodyField, StringParamField, WrapperBase
from aiges.utils.log import log

HERE = Path(__file__).parent
# The models that rapidocr's wheel holds; naming them keeps it from looking for others to download.
MODELS = {
    "Det.model_path": "PP-OCRv6_det_small.onnx",
    "Cls.model_path": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec.model_path": "PP-OCRv6_rec_small.onnx",
}
NO_PICTURE, NOT_A_PICTURE = 1001, 1002
TEXTS = {NO_PICTURE: "there is no picture", NOT_A_PICTURE: "the picture cannot be read"}


class UserRequest:
    """A picture, and whether certainties are wanted."""

    params1 = StringParamField(key="detail", enums=["text", "scores"], value="scores")
    input1 = ImageBodyField(key="image", path=str(HERE / "test_data" / "sign.png"), encoding="png")


class UserResponse:
    """The lines, as JSON."""

    accept1 = StringBodyField(key="result")


class Wrapper(WrapperBase):
    """Reads pictures with rapidocr."""

    serviceId = "ocr"
    version = "v1"
    requestCls = UserRequest()
    responseCls = UserResponse()

    def wrapperInit(self, config: dict) -> int:
        """Open the models."""
        import rapidocr

        folder = Path(rapidocr.__file__).parent / "models"
        params = {key: str(folder / name) for key, name in MODELS.items()}
        params["EngineConfig.onnxruntime.intra_op_num_threads"] = int(config.get("threads", "1"))
        params["Global.log_level"] = "error"
        self.engine = rapidocr.RapidOCR(params=params)
        return 0

    def wrapperOnceExec(
        self, params: dict, reqData: DataListCls, usrTag: str = "", persId: int = 0
    ) -> Response:
        """Read one picture."""
        picture = reqData.get("image")
        if picture is None:
            return Response().response_err(NO_PICTURE)
        try:
            found = self.engine(picture.data)
        except Exception:  # noqa: BLE001 - whatever a picture makes it raise
            log.exception("%s: rapidocr failed", params.get("sid"))
            return Response().response_err(NOT_A_PICTURE)
        lines = [{"text": text} for text in found.txts or ()]
        if params.get("detail") == "scores":
            for line, score in zip(lines, found.scores or (), strict=True):
                line["score"] = round(float(score), 3)
        item = ResponseData()
        item.key = "result"
        item.type = DataText
        item.status = Once
        item.setData(json.dumps({"lines": lines}, ensure_ascii=False).encode())
        response = Response()
        response.list = [item]
        return response

    def wrapperError(self, ret: int) -> str:
        """Say what a code means."""
        return TEXTS.get(ret, "")

    def wrapperFini(self) -> int:
        """Let the models go."""
        self.engine = None
        return 0


if __name__ == "__main__":
    wrapper = Wrapper()
    wrapper.schema()
    wrapper.run()
