"""A thread that feeds one session's requests to an object of the wrapper's own."""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from atomserve.compat.aiges.shim.aiges.dto import Response

_log = logging.getLogger("aiges")
_STOP = object()


class InferClass(ABC):
    """What a wrapper writes: the model of one session."""

    handle: str = ""

    @abstractmethod
    def predict(self, *args: Any, **kwargs: Any) -> tuple[Any, bool]:
        """Work on the request in ``req``; return the output, and whether that was the last."""

    def setHandle(self, hdl: str) -> None:
        """Keep the session's handle."""
        self.handle = hdl


class Worker(threading.Thread):
    """Runs an `InferClass` until it is done, stopped, or fails."""

    def __init__(
        self, name: str | None = None, _type: str = "thread", nums: int = 1, context: Any = None
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.nums = nums
        self.context = {} if context is None else context
        self.in_q: queue.Queue[Any] = queue.Queue()
        self.out_q: queue.Queue[Any] = queue.Queue()
        self.infer_class: Any = None
        self.infer_func: Callable[..., Any] | None = None
        self.callback_fn: Callable[..., Any] | None = None
        self.is_stopping = False

    def stop(self) -> None:
        """End the thread after what it is working on."""
        self.is_stopping = True
        self.in_q.put(_STOP)

    def register_infer_class(self, instance: Any) -> None:
        """Set the session's model."""
        self.infer_class = instance

    def register_infer_func(self, infer: Callable[..., Any]) -> None:
        """Keep a function for the wrapper's own use."""
        self.infer_func = infer

    def register_callback(self, cb: Callable[..., Any]) -> None:
        """Set what a failure is handed to, with the session's handle."""
        self.callback_fn = cb

    def setHandle(self, hdl: str) -> None:
        """Tell the model its session's handle."""
        self.infer_class.setHandle(hdl)

    def create(self, params: Any = None) -> None:
        """Do nothing, as ever."""

    def run(self) -> None:
        """Give the model what is written, until it says that it is done."""
        try:
            while not self.is_stopping:
                req = self.in_q.get()
                if req is _STOP:
                    return
                _, done = self.infer_class.predict(req=req)
                if done:
                    return
        except Exception:  # noqa: BLE001 - a wrapper may raise anything
            _log.exception("the worker of a session failed")
            if self.callback_fn is not None:
                handle = getattr(self.infer_class, "handle", "")
                self.callback_fn(Response().response_err(-1), handle)
