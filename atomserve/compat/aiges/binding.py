"""A wrapper of any generation and signature, called in one way."""

from __future__ import annotations

import logging
from typing import Any

from atomserve.compat.aiges.answers import code_of, created_of, response_of
from atomserve.compat.aiges.generations import Generation, generation_of, inherited
from atomserve.compat.aiges.shim.aiges.dto import (
    DataListCls,
    Response,
    SessionCreateResponse,
)
from atomserve.compat.aiges.shim.python_wrapper import WrapperData
from atomserve.compat.aiges.signatures import FORMS, Plan, attribute_of, plan
from atomserve.errors import PluginError

_log = logging.getLogger("aiges")

ENGINE_CODES = {
    "init": 10901,
    "fini": 10902,
    "load_res": 10903,
    "unload_res": 10904,
    "create": 10905,
    "destroy": 10906,
    "write": 10907,
    "read": 10908,
    "once": 10909,
    "once_async": 10909,
    "callback": 10910,
}
"""What clients see when a method reports a code other than 0; the code itself is in the message."""

NO_PATCH = (None, "", "0")
"""What stands for no personal resource."""
_OPTIONAL = ("init", "fini", "destroy")


class Bound:
    """Calls a wrapper's methods; each may be called from any thread.

    Exceptions of the wrapper pass through. `BadAnswer` is raised for a return value that means
    nothing. Which methods there are, `has` says.
    """

    def __init__(self, wrapper: Any, *, sugar: str | None = None) -> None:
        self.wrapper = wrapper
        self.generation: Generation = generation_of(wrapper)
        self._sugar = sugar
        self._plans: dict[str, Plan] = {}
        self._warned: set[str] = set()
        for method in FORMS[self.generation]:
            found = plan(wrapper, method, self.generation)
            own = found is not None and not inherited(wrapper, found.attribute)
            if found is not None and (own or method == "error"):
                self._plans[method] = found
        if not {"once", "once_async", "create"} & self._plans.keys():
            raise PluginError(f"{type(wrapper).__name__}: has no method to run a request with")

    def has(self, method: str) -> bool:
        """Say whether the wrapper itself has ``method``, named as here: "once", "create" ..."""
        return method in self._plans

    def init(self, config: dict[str, str]) -> int:
        """Initialise the wrapper; anything but 0 is its error code."""
        return self._code("init", None, {"config": config})

    def fini(self) -> int:
        """Let the wrapper give back what it holds."""
        return self._code("fini", None, {})

    def once(
        self,
        params: dict[str, Any],
        request: DataListCls,
        *,
        sid: str = "",
        tag: str = "",
        patch: Any = 0,
    ) -> Response:
        """Run one request; ``params`` becomes the wrapper's own."""
        results: list[Any] = []
        more = {"params": params, "sid": sid, "tag": tag, "patch": patch, "results": results}
        value, name = self._call("once", request, more)
        return response_of(value, name, results=results, sugar=self._sugar)

    def once_async(
        self,
        params: dict[str, Any],
        request: DataListCls,
        *,
        sid: str = "",
        tag: str = "",
        patch: Any = 0,
    ) -> int:
        """Begin to run one request, whose result comes by callback; 0 if it was accepted."""
        more = {"params": params, "sid": sid, "tag": tag, "patch": patch}
        return self._code("once_async", request, more)

    def create(
        self, params: dict[str, Any], *, sid: str, tag: str = "", patch: Any = 0
    ) -> SessionCreateResponse:
        """Begin a session; its handle is the sid where the wrapper gives none."""
        more = {"params": params, "sid": sid, "tag": tag, "patch": patch}
        value, name = self._call("create", None, more)
        return created_of(value, name, sid=sid)

    def write(self, handle: str, request: DataListCls, *, sid: str = "") -> int:
        """Give a session its next piece."""
        return self._code("write", request, {"handle": handle, "sid": sid})

    def read(self, handle: str, *, sid: str = "") -> Response | None:
        """Return the next result of a session; None if there is none yet."""
        results: list[Any] = []
        more = {"handle": handle, "sid": sid, "results": results}
        value, name = self._call("read", None, more)
        if value is None and not results:
            return None
        return response_of(value, name, results=results)

    def destroy(self, handle: str, *, sid: str = "") -> int:
        """End a session."""
        return self._code("destroy", None, {"handle": handle, "sid": sid})

    def load_res(self, request: DataListCls, patch: Any) -> int:
        """Load a personal resource under the id ``patch``."""
        return self._code("load_res", request, {"patch": patch})

    def unload_res(self, patch: Any) -> int:
        """Forget the personal resource ``patch``."""
        return self._code("unload_res", None, {"patch": patch})

    def error_text(self, code: int) -> str:
        """Return the wrapper's text for ``code``; empty if it has none, or fails to tell."""
        found = self._plans.get("error")
        if found is None:
            return ""
        try:
            text = found.call({"code": code})
        except Exception:  # noqa: BLE001 - a text is worth no failed request
            _log.exception("%s(%s) failed", found.attribute, code)
            return ""
        return text if isinstance(text, str) else "" if text is None else str(text)

    def message(self, code: int) -> str:
        """Return what a client is told of ``code``, in the words of AIGES."""
        return f"{self.error_text(code)};code={code}"

    def __repr__(self) -> str:
        return f"<Bound {self.generation}: {' '.join(self._plans)}>"

    def _code(self, method: str, request: DataListCls | None, more: dict[str, Any]) -> int:
        if method in _OPTIONAL and method not in self._plans:
            return 0
        value, name = self._call(method, request, more)
        if value is None and method not in self._warned:
            self._warned.add(method)
            _log.warning("%s returned None: taken as 0", name)
        return code_of(value, name)

    def _call(
        self, method: str, request: DataListCls | None, more: dict[str, Any]
    ) -> tuple[Any, str]:
        found = self._plans.get(method)
        if found is None:
            raise PluginError(f"the wrapper has no {attribute_of(method, self.generation)}")
        values = _EVERYTHING | more
        values["sid"], values["tag"] = _either(values["sid"], values["tag"])
        if values["patch"] in NO_PATCH:
            values["patch"] = 0
        values["patches"] = [values["patch"]] if values["patch"] else []
        values["count"] = len(values["patches"])
        if request is not None:
            values["request"] = self._dialect(request, method, found)
        return found.call(values), found.attribute

    def _dialect(self, request: DataListCls, method: str, found: Plan) -> Any:
        if self.generation == "G3":
            return [
                WrapperData(node.key, node.get_data(), node.type, node.status, node.desc)
                for node in request.list
            ]
        first = self.generation == "G1" and method in ("write", "load_res")
        return _dicts(request) if first or found.takes("results") else request


_EVERYTHING: dict[str, Any] = {
    "params": None,
    "request": None,
    "results": None,
    "handle": "",
    "sid": "",
    "tag": "",
    "patch": 0,
    "config": None,
    "code": 0,
    "zero": 0,
}


def _either(sid: str, tag: str) -> tuple[str, str]:
    """Let one name stand for both, as the engine does."""
    return sid or tag, tag or sid


def _dicts(request: DataListCls) -> tuple[dict[str, Any], ...]:
    """Return the request as function-style wrappers know it."""
    return tuple(
        {
            "key": node.key,
            "data": node.data,
            "len": node.len,
            "status": node.status,
            "type": node.type,
            "desc": node.desc,
        }
        for node in request.list
    )
