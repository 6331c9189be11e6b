"""An AIGES wrapper that answers what it is sent."""

from aiges.dto import DataListCls, Response, ResponseData
from aiges.sdk import StringBodyField, WrapperBase


class UserRequest:
    input1 = StringBodyField(key="text", value=b"1")


class UserResponse:
    accept1 = StringBodyField(key="result")


class Wrapper(WrapperBase):
    serviceId = "aiges_echo"
    version = "v1"
    requestCls = UserRequest()
    responseCls = UserResponse()

    def wrapperInit(self, config: dict[str, str]) -> int:
        return 0

    def wrapperFini(self) -> int:
        return 0

    def wrapperOnceExec(self, params: dict[str, str], reqData: DataListCls) -> Response:
        item = ResponseData(key="result")
        item.setData(reqData.get("text").data)
        return Response([item])
