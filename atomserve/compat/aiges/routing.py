"""Where results go that a wrapper hands to `callback`: to the session that goes by their tag."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from atomserve.compat.aiges.values import text

Deliver = Callable[[Any], bool]
"""Takes a response, at once and from any thread; says whether the session still wanted it."""
Metric = Callable[[str, int], None]
Trace = Callable[[str, str], None]

_MOST_EARLY = 256
_log = logging.getLogger("aiges")


def _unnoticed(key: str, value: Any) -> None:
    """Take a figure, and forget it."""


class Route:
    """One session's way out, from `Routes.open` until it is closed."""

    def __init__(self, routes: Routes, deliver: Deliver, metric: Metric, trace: Trace) -> None:
        self.deliver = deliver
        self.metric = metric
        self.trace = trace
        self.tags: set[str] = set()
        self._routes = routes

    def named(self, handle: str) -> None:
        """Let results come under the handle, too, which only the wrapper's create could tell.

        Results that came under it before are delivered first, in their order.
        """
        self._routes.name(self, handle)

    def close(self) -> None:
        """Take no more results; a second call is harmless."""
        self._routes.forget(self)

    def __repr__(self) -> str:
        return f"<Route {' '.join(sorted(self.tags)) or 'closed'}>"


class Routes:
    """The open sessions by every name that a wrapper may call them by.

    Safe from any thread. A tag that two open sessions share leads nowhere: to guess between them
    would show one client what another asked for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_tag: dict[str, list[Route]] = {}
        self._nameless: set[Route] = set()
        self._early: deque[tuple[str, Any]] = deque()
        self._local: queue.Queue[Any] | None = None
        self.unclaimed: Metric = _unnoticed
        """Counts what belongs to no session, or to one that is over."""

    def open(
        self,
        deliver: Deliver,
        *tags: str,
        nameless: bool = False,
        metric: Metric = _unnoticed,
        trace: Trace = _unnoticed,
    ) -> Route:
        """Open the way for a session known by ``tags``; close it when the session ends.

        A session is ``nameless`` until `Route.named` tells its handle: results under tags that
        nobody knows are kept while there is one, since a thread that the wrapper's create starts
        may be faster than create itself.
        """
        route = Route(self, deliver, metric, trace)
        with self._lock:
            for tag in tags:
                self._add(route, tag)
            if nameless:
                self._nameless.add(route)
        return route

    def name(self, route: Route, handle: str) -> None:
        """Add ``handle`` to the names of ``route``, after what has come under it already."""
        while True:
            with self._lock:
                early = [response for tag, response in self._early if tag == handle]
                if handle in self._by_tag:
                    early = []
                self._early = deque(pair for pair in self._early if pair[0] != handle)
                if not early:
                    self._add(route, handle)
                    self._named(route)
                    return
            for response in early:
                _deliver(route, response)

    def forget(self, route: Route) -> None:
        """Take away every name of ``route``."""
        with self._lock:
            for tag in route.tags:
                others = self._by_tag[tag]
                others.remove(route)
                if not others:
                    del self._by_tag[tag]
            route.tags = set()
            self._named(route)

    def callback(self, response: Any, *tags: Any) -> int:
        """Deliver ``response`` to the session of ``tags``, the last one first; 0, or -1 if none.

        Never raises, and waits for nothing but the session's ``deliver``.
        """
        if self._local is not None:
            self._local.put(response)
            return 0
        route, kept = self._find(response, tags)
        if route is not None:
            return 0 if _deliver(route, response) else -1
        if not kept:
            _log.info("no open session goes by %s", " or ".join(map(repr, tags)) or "no tag")
        return 0 if kept else -1

    def metric(self, tag: Any, key: Any, count: Any) -> int:
        """Count for the session of ``tag``, or for none, since it may be over; always 0."""
        route = self._one(tag)
        note = self.unclaimed if route is None else route.metric
        return _noted(lambda: note(text(key), int(count)))

    def trace(self, tag: Any, key: Any, value: Any) -> int:
        """Note ``value`` on the trace of the session of ``tag``; always 0."""
        route = self._one(tag)
        return 0 if route is None else _noted(lambda: route.trace(text(key), text(value)))

    def keep_locally(self, results: queue.Queue[Any] | None) -> None:
        """Put all results on ``results`` from now on, as a local run needs it; None ends that."""
        self._local = results

    def abandon(self) -> None:
        """Know no session any more: in a forked process, from where no result reaches a client."""
        self._lock = threading.Lock()  # whoever held it runs in the parent alone
        self._by_tag, self._early, self._local = {}, deque(), None
        self._nameless = set()
        self.unclaimed = _unnoticed

    @property
    def local(self) -> queue.Queue[Any] | None:
        """The queue of a local run, if there is one."""
        return self._local

    def __len__(self) -> int:
        """Return how many names lead somewhere; 0 when no session is open."""
        with self._lock:
            return len(self._by_tag)

    def _find(self, response: Any, tags: tuple[Any, ...]) -> tuple[Route | None, bool]:
        names = [text(tag) for tag in reversed(tags) if tag is not None]
        with self._lock:
            for name in names:
                found = self._by_tag.get(name, ())
                if len(found) == 1:
                    return found[0], False
            strange = [name for name in names if name and name not in self._by_tag]
            kept = bool(strange and self._nameless and len(self._early) < _MOST_EARLY)
            if kept:
                self._early.append((strange[-1], response))
            return None, kept

    def _one(self, tag: Any) -> Route | None:
        with self._lock:
            found = self._by_tag.get(text(tag), ())
            return found[0] if len(found) == 1 else None

    def _add(self, route: Route, tag: str) -> None:
        if tag and tag not in route.tags:
            route.tags.add(tag)
            self._by_tag.setdefault(tag, []).append(route)

    def _named(self, route: Route) -> None:
        self._nameless.discard(route)
        if not self._nameless:
            self._early.clear()


def _noted(act: Callable[[], None]) -> int:
    try:
        act()
    except Exception:  # noqa: BLE001 - a wrapper's figure is worth no failed request
        _log.warning("a figure could not be kept", exc_info=True)
    return 0


def _deliver(route: Route, response: Any) -> bool:
    try:
        return route.deliver(response)
    except Exception:  # noqa: BLE001 - the wrapper's thread must go on
        _log.warning("a result could not be delivered", exc_info=True)
        return False


ROUTES = Routes()
"""The routes of this process: `callback` is a plain function, called from threads of any kind."""
os.register_at_fork(after_in_child=ROUTES.abandon)
