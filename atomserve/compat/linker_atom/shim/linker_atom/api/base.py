"""Routes whose requests are told in the log, and profiled where the operator says so."""

import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from atomserve.compat.linker_atom.shim.linker_atom.config import Settings, settings
from atomserve.compat.linker_atom.shim.linker_atom.lib.log import logger
from atomserve.surfaces.linker_parameters import MOST_READ, shown_body, shown_query
from atomserve.surfaces.linker_requests import asks_for_profile
from atomserve.telemetry.profiles import Profiles
from atomserve.telemetry.shown import shown_headers

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ContextAPIRoute(APIRoute):
    """A route that logs headers, then parameters, then the duration of each request."""

    def get_route_handler(self) -> Handler:
        """Return the handler of requests."""
        handler = super().get_route_handler()

        async def told(request: Request) -> Response:
            chosen: Settings = getattr(request.app.state, "settings", settings)
            began = time.monotonic()
            if chosen.log_parameters:
                await _tell(request)
            try:
                with _profiled(request, chosen):
                    return await handler(request)
            finally:
                took = round((time.monotonic() - began) * 1000, 3)
                logger.info({"_prefix": "<<<Duration", **_where(request), "duration": f"{took}ms"})

        return told


class UdfAPIRoute(APIRouter):
    """A router of such routes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("route_class", ContextAPIRoute)
        super().__init__(*args, **kwargs)


def _where(request: Request) -> dict[str, str]:
    host = request.client.host if request.client else ""
    return {"host": host, "method": request.method, "path": request.url.path}


async def _tell(request: Request) -> None:
    headers = shown_headers(request.headers.items())
    logger.info({"_prefix": ">>>Headers", **_where(request), "headers": headers})
    said: dict[str, Any] = {}
    if query := request.scope["query_string"]:
        said["query"] = shown_query(query)
    length = request.headers.get("content-length", "")
    # What is larger, or of unknown length, is left to the route, which may want it in pieces.
    if length.isdigit() and 0 < int(length) <= MOST_READ:
        body = await request.body()
        said |= shown_body(request.headers.get("content-type", ""), body, len(body))
    elif length.isdigit() and int(length):
        said["size"] = int(length)
    if said:
        logger.info({"_prefix": ">>>Params", **said})


def _profiled(request: Request, chosen: Settings) -> AbstractContextManager[None]:
    profiles: Profiles | None = getattr(request.app.state, "profiles", None)
    if profiles is None:
        return nullcontext()
    if not (chosen.profiling or asks_for_profile(request.scope["query_string"])):
        return nullcontext()
    return profiles.profiled(method=request.method, path=request.url.path)
