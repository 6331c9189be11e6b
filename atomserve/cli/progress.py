"""What ``atomserve run`` prints: how the models load, what is served where, how it ends."""

from __future__ import annotations

import os
import re
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from atomserve.cli.terminal import complain, console
from atomserve.supervisor.events import (
    Bound,
    Died,
    Drained,
    Draining,
    Event,
    Failed,
    Killed,
    ModelChanged,
    NotReady,
    Ready,
    WorkerEnded,
)

if TYPE_CHECKING:
    from rich.status import Status

    from atomserve.settings import Settings


class Progress:
    """Prints the supervisor's events; on a terminal, what still loads turns below the lines."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._urls: tuple[str, ...] = ()
        self._started: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._takes: dict[str, str] = {}
        """What is asked of those that take something else than calls."""
        self._told: list[str] = []
        self._failed = False
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._turn(())

    def __call__(self, event: Event) -> None:
        match event:
            case Bound(urls):
                self._urls = urls
                self._say(f"atomserve {version('atomserve')} at {', '.join(urls)} ({os.getpid()})")
            case ModelChanged(_, model, state, detail, takes):
                if takes != "call":
                    self._takes[model] = takes
                self._change(model, state, detail)
            case Ready():
                self._served()
            case NotReady():
                self._say("Not ready.")
            case Died(index, _, reason, delay):
                end = "" if delay is None else f"; starting it again in {delay:g} s"
                self._warn(f"API process {index} ended: {reason}{end}")
            case WorkerEnded(model, slot, _, _, reason, delay) if delay is not None:
                self._warn(f"  {model}: worker {slot} ended: {reason}; another in {delay:g} s")
            case Killed(index, _):
                self._warn(f"API process {index} did not stop, and was killed")
            case Draining(delay, timeout):
                wait = f"{delay:g} s more for new requests, then " if delay else ""
                self._say(f"Stopping: {wait}{timeout:g} s for those in flight. Again: at once.")
            case Drained(aborted) if aborted:
                self._say(f"Stopped; {aborted} requests were cut off.")
            case Drained() if not self._failed:
                self._say("Stopped.")
            case Failed(message, _):
                self._failed = True
                self._turn(())
                complain(message)

    def _change(self, model: str, state: str, detail: str) -> None:
        if self._states.get(model) == state:  # another API process has told it already
            return
        self._states[model] = state
        if state == "ready":
            took = time.monotonic() - self._started.pop(model, time.monotonic())
            self._say(f"  {model}: ready after {took:.1f} s")
        elif state == "failed":
            self._warn(f"  {model}: failed: {detail}")
        else:
            self._started.setdefault(model, time.monotonic())
            if not sys.stdout.isatty():
                self._say(f"  {model}: {state}")
        self._turn([name for name, known in self._states.items() if known == "loading"])

    def _served(self) -> None:
        self._turn(())
        ready = sorted(model for model, state in self._states.items() if state == "ready")
        if ready == self._told:
            self._say("Ready again.")
            return
        self._told = ready
        models = [name for name in ready if self._takes.get(name) != "app"]
        widest = max(map(len, [*ready, "docs"]), default=0)
        if models:
            sessions = "session" in map(self._takes.get, models)
            some = ", or a WebSocket (WS)" if sessions else ""
            self._say(f"Ready. Each answers POST requests{some}:")
        else:
            self._say("Ready:")
        for name in ready:
            self._say(f"  {name:{widest}}  {self._place(name)}")
        if self._settings.docs and models:
            self._say(f"  {'docs':{widest}}  {self._base}/docs")

    @property
    def _base(self) -> str:
        return f"{self._urls[0] if self._urls else ''}{self._settings.prefix}"

    def _place(self, name: str) -> str:
        """Say where ``name`` is found."""
        match self._takes.get(name):
            case "app":
                return f"{self._urls[0] if self._urls else ''}/"
            case "session":
                socket = re.sub("^http", "ws", self._base)
                return f"WS {socket}/v1/models/{name}/session"
        return f"{self._base}/v1/models/{name}/predict"

    def _turn(self, loading: Any) -> None:
        """Show that ``loading`` models load, where somebody watches; nothing turns for nothing."""
        if not sys.stdout.isatty():
            return
        if not loading:
            if self._status is not None:
                self._status.stop()
                self._status = None
            return
        text = f"loading {', '.join(loading)}"
        if self._status is None:
            self._status = console().status(text)
            self._status.start()
        else:
            self._status.update(text)

    def _say(self, line: str) -> None:
        if self._status is not None:
            self._status.console.print(line, markup=False)
        else:
            print(line, flush=True)

    def _warn(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
