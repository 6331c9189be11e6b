"""The paths that are answered here, whatever a hosted application has under them."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import Route


class Reserved:
    """Every path of ``routes``; where one has a parameter, all that begin as it does.

    They are looked up without Starlette's router, which leaves its marks in the scope.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        paths = [route.path for route in routes]
        self._paths = frozenset(path for path in paths if "{" not in path)
        self._trees = tuple(path.partition("{")[0] for path in paths if "{" in path)

    def __contains__(self, path: str) -> bool:
        return path in self._paths or path.startswith(self._trees)
