"""Load, unload and list the resources of models: ``/admin/v1/models/MODEL/resources/NAME``."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atomserve import control
from atomserve.backends.processes import ProcessBackend
from atomserve.backends.resources import FORMS
from atomserve.engine.engine import Engine
from atomserve.errors import (
    Abandoned,
    BadRequest,
    ModelNotFound,
    NotSupported,
    UnsupportedMedia,
)
from atomserve.settings import ResourceSettings
from atomserve.surfaces.admin.calls import Calls
from atomserve.telemetry.resources import Outcome
from atomserve.transport.files import SealedFile

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}").fullmatch
TURNS = 3
"""How often the supervisor may wait for workers: for the order before, this one, its undoing."""
MARGIN = 5.0
QUICK = 5.0
"""Seconds that a question may take which no worker is asked for."""
LONGEST_TYPE = 256

_UNDONE, _UNANSWERED = 500, 504


class ResourceRoutes:
    """Passes an administrator's orders on to the supervisor."""

    def __init__(self, calls: Calls, engine: Engine, settings: ResourceSettings) -> None:
        self._calls = calls
        self._engine = engine
        self._patience = TURNS * settings.timeout + MARGIN

    def routes(self) -> list[Route]:
        """Return the routes."""
        place = "/admin/v1/models/{model}/resources/{resource}"
        return [
            Route("/admin/v1/resources", self.list, methods=["GET"]),
            Route(place, self.load, methods=["PUT"]),
            Route(place, self.unload, methods=["DELETE"]),
        ]

    async def list(self, _: Request) -> Response:
        """Answer with the resources of all models."""
        document = await self._calls.ask(control.ListResources, patience=QUICK)
        return _json(document)

    async def load(self, request: Request) -> Response:
        """Have a resource loaded by every worker of the model."""
        model, name = self._named(request)
        media_type = request.headers.get("content-type", "")
        if (
            media_type.partition(";")[0].strip().lower() not in FORMS
            or len(media_type) > LONGEST_TYPE
        ):
            raise UnsupportedMedia(f"send a resource as {' or '.join(FORMS)}")
        file = SealedFile()
        try:
            await _fill(file, request)

            def order(number: int) -> control.LoadResource:
                return control.LoadResource(number, model, name, media_type, file.size)

            return _outcome(await self._calls.ask(order, file.fd, patience=self._patience))
        finally:
            file.close()

    async def unload(self, request: Request) -> Response:
        """Have a resource unloaded by every worker of the model."""
        model, name = self._named(request)

        def order(number: int) -> control.UnloadResource:
            return control.UnloadResource(number, model, name)

        return _outcome(await self._calls.ask(order, patience=self._patience))

    def _named(self, request: Request) -> tuple[str, str]:
        model, name = request.path_params["model"], request.path_params["resource"]
        if not NAME(name):
            raise BadRequest("the name of a resource: letters, digits, '.', '_' and '-'")
        found = self._engine.models.get(model)
        if found is None:
            raise ModelNotFound(f"no model is called {model!r}")
        if not isinstance(found.backend, ProcessBackend):
            raise NotSupported(f"{model} runs in threads, whose wrappers load no resources")
        return model, name


async def _fill(file: SealedFile, request: Request) -> None:
    """Write the request's body into ``file`` as it comes; the guard bounds it."""
    more = True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise Abandoned
        file.write(message.get("body", b""))
        more = message.get("more_body", False)
    if not file.size:
        raise BadRequest("a resource without any data")
    file.seal()


def _outcome(document: msgspec.Raw) -> Response:
    found = msgspec.json.decode(document, type=Outcome)
    if found.done:
        return _json(document)
    silent = any(row.state == "silent" for row in found.slots)
    return _json(document, _UNANSWERED if silent else _UNDONE)


def _json(document: msgspec.Raw, status: int = 200) -> Response:
    return Response(bytes(document), status, {"Cache-Control": "no-store"}, "application/json")
