"""The application that a service adds its routes to."""

from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from atomserve.compat.linker_atom.shim.linker_atom.api import failures
from atomserve.compat.linker_atom.shim.linker_atom.api.schema.response import Heartbeat
from atomserve.compat.linker_atom.shim.linker_atom.config import Settings, settings
from atomserve.compat.linker_atom.shim.linker_atom.lib.log import logger, show_here
from atomserve.telemetry.profiles import Profiles


def get_app(config: Any = None) -> FastAPI:
    """Return an application with the health route, the envelope of errors and CORS.

    ``config`` are other settings than the environment's, as a mapping or `Settings`. Registration,
    traces and the log's files belong to the server.

    Raises:
        MissingExtra: requests are to be profiled, and pyinstrument is not installed.
    """
    chosen = settings if config is None else Settings.model_validate(config)
    app = FastAPI(
        title=chosen.atom_title,
        description=chosen.atom_description,
        default_response_class=failures.Json,
        docs_url="/docs" if chosen.docs_switch else None,
        redoc_url="/redoc" if chosen.docs_switch else None,
        # Not a lifespan: with one, the start-up events of services would not run.
        on_startup=[partial(_started, chosen)],
    )
    app.state.settings = chosen
    wanted = chosen.profiling or chosen.profiling_on_request
    app.state.profiles = Profiles() if wanted else None
    failures.install(app)
    app.add_middleware(OpenCors)
    app.include_router(_health(chosen.healthcheck_url))
    return app


class OpenCors:
    """Lets every page call, without credentials, unless the operator has said which may.

    The server marks requests whose CORS headers are its own affair: ``atomserve.cors``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        inner: ASGIApp = self._app if scope.get("atomserve.cors") else self._open
        await inner(scope, receive, send)


async def _started(chosen: Settings) -> None:
    show_here()
    shown = chosen.model_dump(exclude={"serving_meta_raw"})
    logger.info({"_prefix": ">>>Running Config", "config": shown})


def _health(path: str) -> APIRouter:
    router = APIRouter()

    @router.get(path, response_model=Heartbeat, name="ping")
    async def ping() -> Heartbeat:
        return Heartbeat(is_alive=True)

    return router
