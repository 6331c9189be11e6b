"""Apache SkyWalking's agent, started in a process whose operator wants it; never in the way."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import socket
import time
from collections.abc import Callable
from typing import Protocol

import structlog

EXTRA = "pip install 'atomserve[skywalking]'"
QUIET = 600.0
"""Seconds in which the agent says the same only once: it tries for ever, each minute."""

log = structlog.get_logger("atomserve.skywalking")


class Wanted(Protocol):
    """What the settings say of the agent."""

    @property
    def enabled(self) -> bool: ...
    @property
    def collector(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def report_logs(self) -> bool: ...
    @property
    def log_level(self) -> str: ...


def warn_if_unusable(wanted: Wanted) -> None:
    """Tell once, for all processes of the instance, what keeps the agent from being started."""
    if problem := _problem(wanted):
        log.warning("skywalking.off", reason=problem)


def start_agent(wanted: Wanted, *, meters: bool) -> None:
    """Start the agent in this process, before what it instruments is used.

    ``meters`` says whether it reports memory, CPU and the like: an instance has only one of each.
    Whatever fails is a warning.
    """
    if not wanted.enabled or _problem(wanted):
        return
    try:
        _start(wanted, meters)
    except Exception as exc:  # noqa: BLE001 - telemetry never stops a service
        log.warning("skywalking.off", reason=f"{type(exc).__name__}: {exc}")


def _problem(wanted: Wanted) -> str:
    if not wanted.enabled:
        return ""
    if not wanted.collector:
        return "no collector: set skywalking.collector"
    if importlib.util.find_spec("skywalking") is None:
        return f"it needs the extra: {EXTRA}"
    return ""


def _start(wanted: Wanted, meters: bool) -> None:
    from skywalking import agent, config

    config.init(
        agent_collector_backend_services=wanted.collector,
        agent_name=wanted.service or "atomserve",
        agent_instance_name=wanted.instance or socket.gethostname(),
        agent_log_reporter_active=wanted.report_logs,
        agent_log_reporter_level=wanted.log_level.upper(),
        agent_log_reporter_safe_mode=True,
        agent_meter_reporter_active=meters,
        # Below, it lists all libraries that it could instrument and that are not installed.
        agent_logging_level=os.environ.get("SW_AGENT_LOGGING_LEVEL", "ERROR"),
    )
    own = logging.getLogger("skywalking")
    own.handlers.clear()  # it writes to standard error by itself
    own.propagate = True
    own.addFilter(_Brief())
    agent.start()


class _Brief(logging.Filter):
    """Lets pass each of the agent's complaints once in a while, without its traceback."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        about = record.getMessage().partition(",")[0]  # what follows is when it tries again
        now = self._clock()
        if now - self._told.get(about, -math.inf) < QUIET:
            return False
        self._told[about] = now
        if record.exc_info and record.exc_info[1]:
            exc = record.exc_info[1]
            record.msg, record.args = "%s: %s: %s", (about, type(exc).__name__, exc)
            record.exc_info = None
        return True
