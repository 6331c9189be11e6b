"""Athena's error codes: what they mean, as data, and which one each of our errors becomes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

Operation = Literal[
    "init", "fini", "load", "unload", "create", "destroy", "write", "read", "exec", "callback"
]
"""What a wrapper was doing."""

BAD_JSON = 10000
BAD_PAYLOAD = 10001
CALL_FAILED = 10002
NO_OUTPUT = 10003
BAD_OUTPUT = 10004
INVALID_DATA = 10009
INACTIVE = 10101
ONCE_TIMEOUT = 10102
OUTPUT_REFUSED = 10106
CRASHED = 10109
NO_LICENCE = 10110
SESSION_TIMEOUT = 10114
BAD_FRAME = 10163
READ_FAILED = 10200
SESSION_ENDED = 10202
WRONG_APP = 10313
NO_ROUTE = 10404


class Meaning(msgspec.Struct, frozen=True):
    """What a code stands for: an HTTP status that says as much, and upstream's own words."""

    status: int
    text: str
    fixed: bool = False
    """The message is always ``text``: clients compare it."""


CODES: Mapping[int, Meaning] = MappingProxyType(
    {
        BAD_JSON: Meaning(400, "the request's JSON cannot be read"),
        BAD_PAYLOAD: Meaning(400, "the payload cannot be converted"),
        CALL_FAILED: Meaning(500, "internal call failed"),
        NO_OUTPUT: Meaning(500, "output data length is 0"),
        BAD_OUTPUT: Meaning(500, "output data unmarshal error"),
        INVALID_DATA: Meaning(413, "input invalid data"),
        INACTIVE: Meaning(410, "service instance inactive, already release", fixed=True),
        ONCE_TIMEOUT: Meaning(504, "service exec once request timeout", fixed=True),
        OUTPUT_REFUSED: Meaning(500, "wrapper output data invalid(key or type)"),
        CRASHED: Meaning(503, "the engine ended on this request"),
        NO_LICENCE: Meaning(429, "service license not enough", fixed=True),
        SESSION_TIMEOUT: Meaning(504, "session timeout", fixed=True),
        BAD_FRAME: Meaning(400, "parse request json error"),
        READ_FAILED: Meaning(408, "session read timeout"),
        SESSION_ENDED: Meaning(409, "the session has ended", fixed=True),
        WRONG_APP: Meaning(403, "invalid appid"),
        NO_ROUTE: Meaning(404, "no category route found"),
        10901: Meaning(503, "wrapperInit failed"),
        10902: Meaning(500, "wrapperFini failed"),
        10903: Meaning(500, "wrapperLoadRes failed"),
        10904: Meaning(500, "wrapperUnloadRes failed"),
        10905: Meaning(500, "wrapperCreate failed"),
        10906: Meaning(500, "wrapperDestroy failed"),
        10907: Meaning(500, "wrapperWrite failed"),
        10908: Meaning(500, "wrapperRead failed"),
        10909: Meaning(500, "wrapperOnceExec failed"),
        10910: Meaning(500, "the callback brought an error"),
    }
)

OPERATIONS: Mapping[str, int] = MappingProxyType(
    {
        "init": 10901,
        "fini": 10902,
        "load": 10903,
        "unload": 10904,
        "create": 10905,
        "destroy": 10906,
        "write": 10907,
        "read": 10908,
        "exec": 10909,
        "callback": 10910,
    }
)

OWN: Mapping[str, int] = MappingProxyType(
    {
        "bad_request": BAD_JSON,
        "athena_envelope": BAD_JSON,
        "athena_payload": BAD_PAYLOAD,
        "athena_output": OUTPUT_REFUSED,
        "athena_app": WRONG_APP,
        "not_found": NO_ROUTE,
        "model_not_found": NO_ROUTE,
        "method_not_allowed": BAD_JSON,
        "not_acceptable": BAD_JSON,
        "request_timeout": READ_FAILED,
        "too_large": INVALID_DATA,
        "unsupported_media_type": BAD_JSON,
        "invalid": BAD_FRAME,
        "headers_too_large": BAD_JSON,
        "overloaded": NO_LICENCE,
        "busy": NO_LICENCE,
        "arena_full": NO_LICENCE,
        "not_ready": CALL_FAILED,
        "draining": CALL_FAILED,
        "deadline_exceeded": ONCE_TIMEOUT,
        "bad_answer": OUTPUT_REFUSED,
        "worker_lost": CRASHED,
        "abandoned": READ_FAILED,
    }
)
"""The code of Athena for each of our codes; a wrapper's failures have `OPERATIONS`."""
