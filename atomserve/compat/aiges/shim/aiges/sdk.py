"""The base class of wrappers, with the fields that describe them."""

from __future__ import annotations

import json
import logging
from typing import Any

from atomserve.compat.aiges.checks import check_resp
from atomserve.compat.aiges.declared import declared, fields_of
from atomserve.compat.aiges.legacy_schema import legacy_schema
from atomserve.compat.aiges.schema import schema_v2
from atomserve.compat.aiges.sessions import SessionManager
from atomserve.compat.aiges.shim.aiges.dto import (
    DataListCls,
    DataListNode,
    Response,
    ResponseData,
    SessionCreateResponse,
)
from atomserve.compat.aiges.shim.aiges.fields import (
    AudioBodyField,
    BooleanParamField,
    Field,
    ImageBodyField,
    IntegerParamField,
    JsonBodyField,
    NumberParamField,
    ParamField,
    PayloadField,
    StringBodyField,
    StringParamField,
    VideoBodyField,
)
from atomserve.compat.aiges.shim.aiges.utils.log import show_here

__all__ = [
    "AudioBodyField",
    "BooleanParamField",
    "DataListCls",
    "DataListNode",
    "Field",
    "ImageBodyField",
    "IntegerParamField",
    "JsonBodyField",
    "NumberParamField",
    "ParamField",
    "PayloadField",
    "Response",
    "ResponseData",
    "SessionCreateResponse",
    "SessionManager",
    "StringBodyField",
    "StringParamField",
    "VideoBodyField",
    "WrapperBase",
]

_log = logging.getLogger("aiges")


class WrapperBase:
    """The base of a wrapper: it overrides what it supports."""

    config: dict[str, Any] = {}  # noqa: RUF012 - wrappers set it by class
    serviceId: str = ""
    version: str = ""

    def __init__(
        self,
        legacy: bool = True,
        is_aipaas: bool = True,
        keep_schema_default_value: bool = True,
    ) -> None:
        self.legacy = legacy
        self.is_aipaas = is_aipaas
        self.keep_schema_default_value = keep_schema_default_value
        self.session = SessionManager()
        self.inputs_test_values: dict[str, Any] = {}
        self.params_test_values: dict[str, Any] = {}
        self.respData: list[Any] = []
        self._schema: Any = None

    def wrapperInit(self, config: dict[str, str]) -> int:
        """Get ready; another answer than 0 is a failure."""
        raise NotImplementedError

    def wrapperFini(self) -> int:
        """Give back what `wrapperInit` took."""
        raise NotImplementedError

    def wrapperLoadRes(self, reqData: DataListCls, resId: int) -> int:
        """Load a personal resource."""
        raise NotImplementedError

    def wrapperUnloadRes(self, resId: int) -> int:
        """Forget a personal resource."""
        raise NotImplementedError

    def wrapperOnceExec(
        self, params: dict[str, Any], reqData: DataListCls, usrTag: str = "", persId: int = 0
    ) -> Response:
        """Work on one request."""
        raise NotImplementedError

    def wrapperOnceExecAsync(
        self, params: dict[str, Any], reqData: DataListCls, sid: str, persId: int = 0
    ) -> int:
        """Begin to work on one request; its result comes by callback."""
        raise NotImplementedError

    def wrapperError(self, ret: int) -> str:
        """Return the text of an error code."""
        return "no result" if ret == 100 else ""

    def wrapperCreate(
        self, params: dict[str, Any], sid: str, persId: int = 0, usrTag: str = ""
    ) -> SessionCreateResponse:
        """Begin a session."""
        raise NotImplementedError

    def wrapperWrite(self, handle: str, datas: DataListCls) -> int:
        """Take a piece of a session."""
        raise NotImplementedError

    def wrapperRead(self, handle: str) -> Response:
        """Return a session's next results."""
        raise NotImplementedError

    def wrapperDestroy(self, handle: str) -> int:
        """End a session."""
        return 0

    def response_err(self, code: int) -> Response:
        """Return a result that is an error."""
        return Response(error_code=code)

    def check_resp(self, resp: Any) -> bool:
        """Say whether a result keeps the rules, and log which ones it breaks."""
        findings = check_resp(resp, fields_of(self).accepts)
        for finding in findings:
            _log.error("%s", finding)
        return not findings

    def schema(self) -> str:
        """Log and return the document that describes the wrapper, as JSON."""
        own = declared(self)
        document = legacy_schema(own) if self.legacy else schema_v2(own, aipaas=self.is_aipaas)
        self._schema = document
        text = json.dumps(document, indent=4, ensure_ascii=False)
        show_here()
        _log.info("%s", text)
        return text

    def run(self, stream: bool = False) -> None:
        """Call the wrapper with its fields' test values, and log whether the result is right."""
        from atomserve.compat.aiges.local import run

        show_here()
        run(self, stream=stream)

    def gradio(self) -> None:
        """Do nothing: there is no page to try the wrapper on."""
        _log.warning("there is no gradio page; use the server's /docs")
