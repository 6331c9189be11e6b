"""Small things that services use: timed and caught calls, values cut short, a cache."""

import functools
import inspect
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from atomserve.compat.linker_atom.shim.linker_atom.lib.log import logger
from atomserve.telemetry.shown import DATA, TEXT

Function = Callable[..., Any]


def record_duration(func: Function) -> Function:
    """Log how long each call of ``func`` takes, in milliseconds."""

    @contextmanager
    def timed() -> Iterator[None]:
        began = time.perf_counter()
        yield
        took = round((time.perf_counter() - began) * 1000, 3)
        logger.debug("%s duration: %sms", func.__name__, took)

    return _around(func, timed)


def catch_exc(calc_time: bool = False, default_data: Any = None) -> Callable[[Function], Function]:
    """Let calls return ``default_data`` where they fail, which is logged; time them if wanted."""

    def caught(func: Function) -> Function:
        @contextmanager
        def guarded() -> Iterator[None]:
            began = time.perf_counter()
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - what it is asked for
                logger.error("%s", exc, exc_info=True)
            if calc_time:
                took = round(time.perf_counter() - began, 3)
                logger.debug("%s duration: %ss", func.__name__, took)

        return _around(func, guarded, default_data)

    return caught


def format_long_val(data: Any) -> Any:
    """Return ``data`` with its long texts and bytes cut; lists keep their lengths."""
    if isinstance(data, dict):
        return {key: format_long_val(value) for key, value in data.items()}
    if isinstance(data, list):
        return [format_long_val(value) for value in data]
    if isinstance(data, str):
        return data[:TEXT]
    return data[:DATA] if isinstance(data, bytes) else data


class LRUCache:
    """Keeps the ``capacity`` values that were used last; safe to share between threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.cache: OrderedDict[Any, Any] = OrderedDict()
        self._lock = Lock()

    def has(self, key: Any) -> bool:
        """Say whether ``key`` is kept."""
        return key in self.cache

    def get(self, key: Any) -> Any:
        """Return the value of ``key``, or None."""
        with self._lock:
            if key not in self.cache:
                return None
            self.cache.move_to_end(key)
            return self.cache[key]

    def put(self, key: Any, value: Any) -> None:
        """Keep ``value``; the one unused for longest leaves for it."""
        with self._lock:
            self.cache[key] = value
            self.cache.move_to_end(key)
            if len(self.cache) > self.capacity:
                self.cache.popitem(last=False)

    def pop(self, key: Any) -> None:
        """Forget ``key``."""
        with self._lock:
            self.cache.pop(key, None)


def _around(func: Function, context: Callable[[], Any], default: Any = None) -> Function:
    """Call ``func`` within ``context``; where that swallows an exception, return ``default``."""

    @functools.wraps(func)
    async def in_task(*args: Any, **kwargs: Any) -> Any:
        with context():
            return await func(*args, **kwargs)
        return default

    @functools.wraps(func)
    def in_thread(*args: Any, **kwargs: Any) -> Any:
        with context():
            return func(*args, **kwargs)
        return default

    return in_task if inspect.iscoroutinefunction(func) else in_thread
