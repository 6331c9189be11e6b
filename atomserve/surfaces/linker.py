"""Models served as linker_atom's services are: its health route, its errors, its request log."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from atomserve.configuration.linker_environment import HEALTH_PATH
from atomserve.guard.problems import Refusal
from atomserve.settings import LinkerSettings
from atomserve.surfaces import linker_documents, linker_errors
from atomserve.surfaces.health import Checks
from atomserve.surfaces.linker_requests import Told
from atomserve.telemetry.profiles import Profiles


class Conventions:
    """What changes where ``linker.conventions`` says so; the models' answers do not.

    Raises:
        MissingExtra: requests are to be profiled, and pyinstrument is not installed.
    """

    def __init__(self, settings: LinkerSettings, *, prefix: str = "") -> None:
        self._settings = settings
        self._path = settings.health_path or f"{prefix}{HEALTH_PATH}"
        wanted = settings.profiling or settings.profiling_on_request
        self._profiles = Profiles() if wanted else None

    @property
    def refusal(self) -> Refusal:
        """How errors are told."""
        return linker_errors.tell

    def endpoint(self, app: ASGIApp) -> ASGIApp:
        """Return a model's endpoint with its requests told in the log."""
        settings = self._settings
        return Told(
            app,
            parameters=settings.log_parameters,
            profiles=self._profiles,
            always=settings.profiling,
        )

    def documented(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the OpenAPI document as it is with these conventions."""
        return linker_documents.documented(document, health_path=self._path)

    def routes(self, checks: Checks) -> list[Route]:
        """Return the health route: alive is who wants requests, as a service that has started."""

        async def ping(_: Request) -> Response:
            alive = checks.ready and not checks.draining
            headers = {"Cache-Control": "no-store"}
            return JSONResponse({"is_alive": alive}, 200 if alive else 503, headers)

        return [Route(self._path, ping, name="ping")]
