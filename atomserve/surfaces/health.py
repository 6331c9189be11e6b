"""The probes: whether the server runs, has started, and wants requests, and how each model is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atomserve.errors import ModelNotFound, problem

READY = "ready"
REGISTERED = "registered"


class Checks(Protocol):
    """What the probes read; all of it must be at hand, for no probe may wait for a model."""

    @property
    def started(self) -> bool:
        """Whether the server has been ready once, or will not try again."""

    @property
    def ready(self) -> bool:
        """Whether requests are welcome, as far as the models go."""

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""

    @property
    def registration(self) -> tuple[str, str] | None:
        """State and detail of the registration at a control plane; it never decides readiness."""

    def states(self) -> Mapping[str, tuple[str, str]]:
        """Return state and detail (one line, fit to be shown to anyone) of each model."""


class Health(msgspec.Struct, frozen=True):
    """A probe's answer; ``detail`` says why it is not ok."""

    ok: bool
    detail: str
    models: Mapping[str, tuple[str, str]]
    registration: tuple[str, str] | None = None

    def text(self, name: str, *, verbose: bool) -> str:
        """Write a line for people, after one for each model if ``verbose``."""
        if not verbose:
            return "ok\n" if self.ok else f"not ok: {self.detail}\n"
        lines = [
            _line(f"model {model}", state, detail, good=READY)
            for model, (state, detail) in self.models.items()
        ]
        if self.registration is not None:
            lines.append(_line("registration", *self.registration, good=REGISTERED))
        verdict = "passed" if self.ok else f"failed: {self.detail}"
        return "\n".join([*lines, f"{name} check {verdict}", ""])

    def data(self) -> dict[str, Any]:
        """Return the form that programs read."""
        models = {
            model: {"state": state, "detail": detail}
            for model, (state, detail) in self.models.items()
        }
        data = {"ok": self.ok, "detail": self.detail, "models": models}
        if self.registration is not None:
            state, detail = self.registration
            data["registration"] = {"state": state, "detail": detail}
        return data


def routes(checks: Checks) -> list[Route]:
    """Serve ``/livez``, ``/readyz``, ``/readyz/MODEL``, ``/startupz`` and ``/healthz``.

    503 says no. ``?verbose`` lists the models; ``Accept: application/json`` always does.
    """

    def live(request: Request) -> Health:
        return Health(True, "", checks.states())

    def started(request: Request) -> Health:
        detail = "" if checks.started else "starting"
        return Health(checks.started, detail, checks.states())

    def ready(request: Request) -> Health:
        states = checks.states()
        ok = checks.ready and not checks.draining
        reason = "" if ok else _reason(checks, states)
        return Health(ok, reason, states, checks.registration)

    def ready_model(request: Request) -> Health | None:
        model = request.path_params["check"]
        state = checks.states().get(model)
        if state is None:
            return None
        ok = state[0] == READY and not checks.draining
        return Health(ok, "" if ok else _reason(checks, {model: state}), {model: state})

    return [
        Route("/livez", _probe("livez", live)),
        Route("/readyz", _probe("readyz", ready)),
        Route("/readyz/{check}", _probe("readyz", ready_model)),
        Route("/startupz", _probe("startupz", started)),
        Route("/healthz", _probe("healthz", ready)),
    ]


def _probe(
    name: str, look: Callable[[Request], Health | None]
) -> Callable[[Request], Awaitable[Response]]:
    async def probe(request: Request) -> Response:
        health = look(request)
        headers = {"Cache-Control": "no-store"}
        if health is None:
            return _not_found(request.path_params["check"])
        status = 200 if health.ok else 503
        if _wants_json(request):
            body = msgspec.json.encode(health.data())
            return Response(body, status, headers, "application/json")
        text = health.text(name, verbose="verbose" in request.query_params)
        return Response(text, status, headers, "text/plain")

    return probe


def _not_found(model: str) -> Response:
    error = ModelNotFound(f"no model is called {model!r}")
    body = msgspec.json.encode(problem(error))
    return Response(body, error.status, media_type="application/problem+json")


def _reason(checks: Checks, states: Mapping[str, tuple[str, str]]) -> str:
    if checks.draining:
        return "draining"
    waiting = [f"{model} is {state}" for model, (state, _) in states.items() if state != READY]
    return ", ".join(waiting) or ("not ready" if checks.started else "starting")


def _line(what: str, state: str, detail: str, *, good: str) -> str:
    sign = "+" if state == good else "-"
    return f"[{sign}] {what}: {state}" + (f" ({detail})" if detail else "")


def _wants_json(request: Request) -> bool:
    ranges = ",".join(request.headers.getlist("accept")).split(",")
    return any(each.partition(";")[0].strip().lower() == "application/json" for each in ranges)
