"""Documents that services answer with: the envelope of results and errors, detections."""

from typing import Any

from pydantic import BaseModel, Field


class BaseJsonResModel(BaseModel):
    """The envelope of every result and error."""

    code: int = Field(title="状态码")
    msg: str = Field(title="状态值说明")
    data: Any = {}


class SuccessResponse(BaseJsonResModel):
    """What went well."""

    code: int = Field(default=0, title="状态码")
    msg: str = Field(default="Success", title="状态值说明")


class FailureResponse(BaseJsonResModel):
    """What did not."""

    code: int = Field(default=1, title="状态码")
    msg: str = Field(default="Failed", title="状态值说明")


class ExternalInvokeErrorResponse(FailureResponse):
    """The caller's request cannot be used."""

    code: int = 400
    msg: str = "External Invoke Error"


class RequestNotFoundErrorResponse(FailureResponse):
    """Nothing is served under this path."""

    code: int = 404
    msg: str = "NOT FOUND"


class RequestValidErrorResponse(FailureResponse):
    """The request does not fit; ``data`` lists what is wrong."""

    code: int = 422
    msg: str = "Request Entity Error"


class InternalErrorResponse(FailureResponse):
    """The service failed."""

    code: int = 500
    msg: str = "Internal Server Error"


class Heartbeat(BaseModel):
    """The answer of the health route."""

    is_alive: bool


class Object(BaseModel):
    """One thing that was found in a picture, in pixels."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float
    conf: float
    label: str


class DetectionRes(BaseModel):
    """What was found in each of some pictures."""

    code: int = 200
    msg: str = ""
    description: str = ""
    kwargs: dict[str, Any] = {}
    took: int
    objects: list[list[Object]] = []
