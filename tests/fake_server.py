"""An instance around fakes: `supervise JSON` is the parent, `FD` its API process.

With workers in the plan, both kinds of children are those of `fake_children`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
from fakes import FakeApplication

from atomserve.plugins import Source
from atomserve.settings import Settings


class Plan(msgspec.Struct):
    settings: Settings
    options: dict[str, Any] = {}
    workers: dict[str, dict[str, Any]] = {}


def supervise(plan: Plan) -> int:
    from atomserve.supervisor import events, supervisor
    from atomserve.telemetry.logs import configure_logging

    def tell(event: events.Event) -> None:
        line = {"event": type(event).__name__, **msgspec.structs.asdict(event)}
        line["heavy"] = [name for name in HEAVY if name in sys.modules]
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.flush()

    if plan.settings.registration.registrar:
        configure_logging()
    if not plan.workers:
        threads = msgspec.structs.replace(plan.settings, executor="thread")
        sources = [source("echo", plan.options)]
        child = (sys.executable, __file__)
        return supervisor.run(threads, sources, on_event=tell, child=child)
    configure_logging()
    children = str(Path(__file__).with_name("fake_children.py"))
    return supervisor.run(
        plan.settings,
        [source(name, options) for name, options in plan.workers.items()],
        on_event=tell,
        child=(sys.executable, children, "api"),
        worker=(sys.executable, children, "worker"),
    )


def source(name: str, options: dict[str, Any]) -> Source:
    """Return a source that says what the fake that serves it shall do."""
    target = msgspec.json.encode(options).decode()
    given = None if options.get("unnamed") else name
    return Source(name=given, kind="file", target=target, spec=f"{name}.py")


HEAVY = (
    "numpy",
    "starlette",
    "hypercorn",
    "uvloop",
    "h2",
    "PIL",
    "httpx2",
    "atomserve.server.process",
)

if __name__ == "__main__":
    if sys.argv[1] == "supervise":
        del sys.modules["fakes"]
        sys.exit(supervise(msgspec.json.decode(sys.argv[2], type=Plan)))
    from atomserve.server import process as server

    server.main(
        lambda settings, sources, expected: FakeApplication(
            msgspec.json.decode(sources[0]["target"])
        )
    )
