"""An instance around the fake application: `supervise JSON` is the parent, `FD` the child."""

from __future__ import annotations

import sys

import msgspec
from fakes import FakeApplication

from atomserve.settings import Settings


class Plan(msgspec.Struct):
    settings: Settings
    options: dict[str, object] = {}


def supervise(plan: Plan) -> int:
    from atomserve.supervisor import events, supervisor

    def tell(event: events.Event) -> None:
        line = {"event": type(event).__name__, **msgspec.structs.asdict(event)}
        line["heavy"] = [name for name in HEAVY if name in sys.modules]
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.flush()

    child = (sys.executable, __file__)
    return supervisor.run(plan.settings, (plan.options,), on_event=tell, child=child)


HEAVY = ("numpy", "starlette", "hypercorn", "uvloop", "h2", "PIL", "atomserve.server.process")

if __name__ == "__main__":
    if sys.argv[1] == "supervise":
        del sys.modules["fakes"]
        sys.exit(supervise(msgspec.json.decode(sys.argv[2], type=Plan)))
    from atomserve.server import process as server

    server.main(lambda settings, sources, expected: FakeApplication(sources[0]))
