"""The base class and the objects of the third generation of wrappers."""

from __future__ import annotations

import builtins
import logging
from abc import ABC
from enum import IntEnum
from typing import Any

from atomserve.compat.aiges.routing import ROUTES
from atomserve.compat.aiges.shim.aiges.dto import Response, ResponseData, stored

__all__ = ["DataStatus", "WrapperBase", "WrapperData"]

_log = logging.getLogger("aiges")


class DataStatus(IntEnum):
    """Where in a stream a piece stands."""

    BEGIN = 0
    CONTINUE = 1
    END = 2
    ONCE = 3
    begin = 0
    continue_ = 1
    end = 2
    once = 3
    Begin = 0
    Continue = 1
    End = 2
    Once = 3
    DataBegin = 0
    DataContinue = 1
    DataEnd = 2
    DataOnce = 3


class WrapperData(ResponseData):
    """One piece of a request or of a result."""

    def __init__(
        self,
        key: Any = "",
        data: Any = b"",
        type: int = 0,
        status: int = DataStatus.ONCE,
        desc: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(key, b"", type=type, status=status, desc=desc)
        self.data = data

    @property
    def data(self) -> bytes:
        """The piece itself, copied out of shared memory on first use."""
        if isinstance(self._data, memoryview):
            self._data = self._data.tobytes()
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self.given = builtins.type(value)
        self._data = stored(value)

    def get_data(self) -> bytes | memoryview:
        """Return the piece without a copy, where it still lies in shared memory."""
        return self._data


class WrapperBase(ABC):  # noqa: B024 - an ABC it has always been; nothing is compulsory
    """The base of a wrapper: it overrides what it supports, and may call the rest."""

    def init(self, config: dict[str, str]) -> int:
        """Get ready; another answer than 0 is a failure."""
        return 0

    def fini(self) -> int:
        """Give back what `init` took."""
        return 0

    def version(self) -> str:
        """Return the wrapper's version."""
        return "1"

    def exec(
        self, usr_tag: str, params: dict[str, str], data_list: list[Any], psr_ids: list[Any]
    ) -> tuple[list[WrapperData], int]:
        """Work on one request."""
        raise NotImplementedError

    def create(self, usr_tag: str, params: dict[str, str], psr_ids: list[Any]) -> Any:
        """Begin a session; return its handle and a code."""
        raise NotImplementedError

    def write(self, handle: str, data_list: list[Any]) -> int:
        """Take a piece of a session."""
        raise NotImplementedError

    def read(self, handle: str) -> tuple[list[WrapperData], int]:
        """Return a session's next results."""
        raise NotImplementedError

    def destroy(self, handle: str) -> int:
        """End a session."""
        return 0

    def load_res(self, res_data: Any, res_id: Any) -> int:
        """Load a personal resource."""
        raise NotImplementedError

    def unload_res(self, res_id: Any) -> int:
        """Forget a personal resource."""
        raise NotImplementedError

    def debug_info(self, *args: Any) -> str:
        """Return what helps to find a fault."""
        return ""

    def error(self, code: int) -> str:
        """Return the text of a code."""
        return ""

    def notify(self, *args: Any) -> int:
        """Hear of an event; ignored unless overridden."""
        return 0

    def meter_custom(self, usr_tag: str, key: str, count: int = 1, *more: Any) -> int:
        """Count ``count`` of ``key`` for a session."""
        return ROUTES.metric(usr_tag, key, count)

    def meter_custom_ex(self, usr_tag: str, key: str, count: int = 1, *more: Any) -> int:
        """Count ``count`` of ``key`` for a session."""
        return ROUTES.metric(usr_tag, key, count)

    def trace_log(self, usr_tag: str, key: str, value: Any = "", *more: Any) -> int:
        """Note ``value`` on a session's trace."""
        return ROUTES.trace(usr_tag, key, value)

    def metrics_log(self, *facts: Any) -> int:
        """Log figures."""
        return self._noted("metrics", facts)

    def eventlog(self, *facts: Any) -> int:
        """Log an event."""
        return self._noted("event", facts)

    def update_lb_extra(self, *facts: Any) -> int:
        """Do nothing: there is no load balancer to tell."""
        return 0

    def async_callback(self, usr_tag: str, *result: Any) -> int:
        """Send results, a code or both to a session; 0, or -1 if it is gone."""
        response = Response()
        for part in result:
            if isinstance(part, int):
                response.error_code = part
            elif isinstance(part, ResponseData):
                response.list.append(part)
            else:
                response.list.extend(part or ())
        return ROUTES.callback(response, usr_tag)

    @staticmethod
    def _noted(kind: str, facts: tuple[Any, ...]) -> int:
        _log.info("%s: %s", kind, facts)
        return 0
