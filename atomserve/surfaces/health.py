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

    def apps(self) -> Mapping[str, tuple[str, str]]:
        """Return state and detail of each hosted app."""


class Health(msgspec.Struct, frozen=True):
    """A probe's answer; ``detail`` says why it is not ok."""

    ok: bool
    detail: str
    models: Mapping[str, tuple[str, str]]
    apps: Mapping[str, tuple[str, str]] = {}
    registration: tuple[str, str] | None = None

    def text(self, name: str, *, verbose: bool) -> str:
        """Write a line for people, after one for each model if ``verbose``."""
        if not verbose:
            return "ok\n" if self.ok else f"not ok: {self.detail}\n"
        lines = [
            _line(f"{kind} {served}", state, detail, good=READY)
            for kind, states in (("model", self.models), ("app", self.apps))
            for served, (state, detail) in states.items()
        ]
        if self.registration is not None:
            lines.append(_line("registration", *self.registration, good=REGISTERED))
        verdict = "passed" if self.ok else f"failed: {self.detail}"
        return "\n".join([*lines, f"{name} check {verdict}", ""])

    def data(self) -> dict[str, Any]:
        """Return the form that programs read."""
        found: dict[str, Any] = {"ok": self.ok, "detail": self.detail}
        found["models"] = _listed(self.models)
        if self.apps:
            found["apps"] = _listed(self.apps)
        if self.registration is not None:
            state, detail = self.registration
            found["registration"] = {"state": state, "detail": detail}
        return found


def routes(checks: Checks) -> list[Route]:
    """Serve ``/livez``, ``/readyz``, ``/readyz/MODEL``, ``/startupz`` and ``/healthz``.

    503 says no. ``?verbose`` lists the models; ``Accept: application/json`` always does.
    """

    def live(request: Request) -> Health:
        return Health(True, "", checks.states(), checks.apps())

    def started(request: Request) -> Health:
        detail = "" if checks.started else "starting"
        return Health(checks.started, detail, checks.states(), checks.apps())

    def ready(request: Request) -> Health:
        states, apps = checks.states(), checks.apps()
        ok = checks.ready and not checks.draining
        reason = "" if ok else _reason(checks, {**states, **apps})
        return Health(ok, reason, states, apps, checks.registration)

    def ready_model(request: Request) -> Health | None:
        name = request.path_params["check"]
        models = {found: state for found, state in checks.states().items() if found == name}
        apps = {found: state for found, state in checks.apps().items() if found == name}
        if not (models or apps):
            return None
        state, _ = {**models, **apps}[name]
        ok = state == READY and not checks.draining
        return Health(ok, "" if ok else _reason(checks, {**models, **apps}), models, apps)

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


def _listed(states: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {name: {"state": state, "detail": detail} for name, (state, detail) in states.items()}


def _line(what: str, state: str, detail: str, *, good: str) -> str:
    sign = "+" if state == good else "-"
    return f"[{sign}] {what}: {state}" + (f" ({detail})" if detail else "")


def _wants_json(request: Request) -> bool:
    ranges = ",".join(request.headers.getlist("accept")).split(",")
    return any(each.partition(";")[0].strip().lower() == "application/json" for each in ranges)
