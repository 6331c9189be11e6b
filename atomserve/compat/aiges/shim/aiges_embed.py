"""The names that the C++ loader supplied; the same objects as in `aiges.dto`."""

from atomserve.compat.aiges.shim.aiges.dto import (
    DataListCls,
    DataListNode,
    Response,
    ResponseData,
    SessionCreateResponse,
    callback,
    callback_metric,
    callback_trace,
    init_rq,
)

__all__ = [
    "DataListCls",
    "DataListNode",
    "Response",
    "ResponseData",
    "SessionCreateResponse",
    "callback",
    "callback_metric",
    "callback_trace",
    "init_rq",
]
