"""The application behind the administrators' listener: its routes, its access, its guard."""

from __future__ import annotations

from functools import partial

import msgspec
from starlette.routing import Router

from atomserve.engine.engine import Engine
from atomserve.guard.guard import Guard
from atomserve.guard.resets import reset
from atomserve.settings import Settings
from atomserve.surfaces.admin.access import Access
from atomserve.surfaces.admin.calls import Calls
from atomserve.surfaces.admin.resources import ResourceRoutes
from atomserve.surfaces.routing import route
from atomserve.telemetry.logs import AccessLog


def admin_guard(
    settings: Settings, calls: Calls, engine: Engine, access: AccessLog | None
) -> Guard:
    """Build what administrators are served, while it is entered."""
    routes = ResourceRoutes(calls, engine, settings.resources).routes()
    router = Router(routes, redirect_slashes=False)
    largest = settings.resources.largest
    return Guard(
        Access(partial(route, router), settings.admin_hosts),
        limits=msgspec.structs.replace(settings.limits, body=largest, bodies_in_flight=largest),
        access=access,
        reset=reset,
    )
