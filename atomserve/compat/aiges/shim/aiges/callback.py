"""The callback with a session's handle and its sid, from the SDK's gRPC mode."""

from __future__ import annotations

from typing import Any

from atomserve.compat.aiges.routing import ROUTES


def callback(response: Any, handle: Any = "", sid: Any = None) -> int:
    """Send a result to the session of ``sid`` or ``handle``; 0, or -1 if it is gone."""
    return ROUTES.callback(response, handle, sid)


def set_up(results: Any) -> None:
    """Do nothing: results need no queue here."""
