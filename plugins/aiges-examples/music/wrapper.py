"""Ask another service which piece of music a sound is, or somebody hums."""

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from aiges.core.types import DataText, Once
from aiges.dto import DataListCls, Response, ResponseData
from aiges.sdk import AudioBodyField, JsonBodyField, StringParamField, WrapperBase
from aiges.utils.log import log

HERE = Path(__file__).parent
NO_SOUND, UNREACHABLE, REFUSED = 1001, 1002, 1003
TEXTS = {
    NO_SOUND: "there is no sound",
    UNREACHABLE: "the music service cannot be reached",
    REFUSED: "the music service refused the sound",
}


class UserRequest:
    """A sound, and what kind of sound it is."""

    params1 = StringParamField(key="mode", enums=["music", "humming"], value="humming")
    input1 = AudioBodyField(key="data", path=str(HERE / "test_data" / "tune.pcm"))


class UserResponse:
    """What the other service says, as JSON."""

    accept1 = JsonBodyField(key="output_text")


class Wrapper(WrapperBase):
    """Passes sounds on, and answers back."""

    serviceId = "music"
    version = "v1"
    requestCls = UserRequest()
    responseCls = UserResponse()

    def wrapperInit(self, config: dict) -> int:
        """Read where the other service is; the configuration is text."""
        self.url = config["url"]
        self.timeout = float(config.get("timeout", "10"))
        return 0

    def wrapperOnceExec(
        self, params: dict, reqData: DataListCls, usrTag: str = "", persId: int = 0
    ) -> Response:
        """Pass one sound on."""
        sound = reqData.get("data")
        if sound is None or not sound.data:
            return Response().response_err(NO_SOUND)
        query = urllib.parse.urlencode({"mode": params.get("mode", "music")})
        request = urllib.request.Request(
            f"{self.url}?{query}",
            data=sound.data,
            headers={"Content-Type": "application/octet-stream"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as exc:
            log.warning("%s: status %s", params.get("sid"), exc.code)
            exc.close()
            return Response().response_err(REFUSED)
        except OSError as exc:
            log.warning("%s: %s", params.get("sid"), exc)
            return Response().response_err(UNREACHABLE)
        item = ResponseData()
        item.key = "output_text"
        item.type = DataText
        item.status = Once
        item.setData(json.dumps(found, ensure_ascii=False).encode())
        response = Response()
        response.list = [item]
        return response

    def wrapperError(self, ret: int) -> str:
        """Say what a code means."""
        return TEXTS.get(ret, "")

    def wrapperFini(self) -> int:
        """Give nothing back: nothing was taken."""
        return 0


if __name__ == "__main__":
    wrapper = Wrapper()
    wrapper.schema()
    wrapper.run()
