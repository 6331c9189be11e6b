"""Requests on their way through Starlette's router, whose refusals become ours."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from atomserve.errors import AtomError, MethodNotAllowed, NotFound
from atomserve.guard.client import client_of


async def route(router: Router, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one scope by ``router``; the access record is told which route it took.

    Raises:
        AtomError: no route fits.
    """
    scope["app"] = router  # Starlette's routes raise only inside of an application.
    try:
        await router(scope, receive, send)
    except HTTPException as exc:
        raise _refusal(scope, exc) from exc
    finally:
        if scope["type"] == "http":
            client_of(scope).route = getattr(scope.get("route"), "path", "")


def _refusal(scope: Scope, exc: HTTPException) -> AtomError:
    if exc.status_code == 405:
        allow = (exc.headers or {}).get("Allow", "GET").split(", ")
        return MethodNotAllowed(f"{scope['path']} takes {', '.join(allow)}", allow=allow)
    return NotFound(f"nothing is served under {scope['path']!r}")
