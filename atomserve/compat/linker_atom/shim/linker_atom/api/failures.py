"""Failures as services answer them: one envelope, and no word of what a bug says of itself."""

import secrets
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atomserve.compat.linker_atom.shim.linker_atom.api.schema.response import (
    BaseJsonResModel,
    ExternalInvokeErrorResponse,
    FailureResponse,
    InternalErrorResponse,
    RequestNotFoundErrorResponse,
    RequestValidErrorResponse,
)
from atomserve.compat.linker_atom.shim.linker_atom.lib.log import logger
from atomserve.errors import AtomError
from atomserve.guard.client import ClientGone

_USUAL: dict[int, tuple[str, BaseJsonResModel]] = {
    400: ("Bad Request", ExternalInvokeErrorResponse()),
    404: ("Not Found", RequestNotFoundErrorResponse()),
}
"""What is answered where a service says no more than the phrase of the status."""
_BODILESS = (204, 304)


class Json(JSONResponse):
    """JSON as services have always answered: numbers that are none become null."""

    def render(self, content: Any) -> bytes:
        """Encode ``content``."""
        return msgspec.json.encode(content)


def answer(model: BaseJsonResModel, **options: Any) -> Response:
    """Answer with an envelope whose code is the status."""
    return Json(model.model_dump(), model.code, **options)


def install(app: FastAPI) -> None:
    """Let every failure of ``app`` be told in the envelope."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(Bugs)


async def _invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    found = [{key: each[key] for key in ("type", "loc", "msg")} for each in exc.errors()]
    return answer(RequestValidErrorResponse(data=found))


async def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    headers = exc.headers
    if exc.status_code in _BODILESS:
        return Response(status_code=exc.status_code, headers=headers)
    phrase, model = _USUAL.get(exc.status_code, ("", FailureResponse()))
    if not phrase or exc.detail != phrase:
        # A detail need not be text: FastAPI takes anything that has a JSON form.
        text = isinstance(exc.detail, str)
        told: dict[str, Any] = {"msg": exc.detail} if text else {"data": exc.detail}
        model = FailureResponse(code=exc.status_code, **told)
    logger.warning("<<<%s|%s|%s", request.method, request.url.path, exc.status_code)
    return answer(model, headers=headers)


class Bugs:
    """Answers what a route lets out with a fixed text, and the id under which it is logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except (AtomError, ClientGone, ClientDisconnect):  # the server's own: it knows what to say
            raise
        except Exception as exc:
            if begun:
                raise
            trace_id = secrets.token_hex(4)
            logger.error("failed, trace id %s", trace_id, exc_info=exc)
            found = answer(InternalErrorResponse(data={"trace_id": trace_id}))
            await found(scope, receive, send)
        return None
