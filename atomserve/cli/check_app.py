"""``atomserve check`` of an application that is hosted: import it, start it, stop it."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomserve.hosting.foreign import Foreign
    from atomserve.plugins import Source
    from atomserve.settings import Settings


def check_app(source: Source, *, as_json: bool) -> int:
    """Import the app that ``source`` names, start it and stop it, as a server would.

    Raises `PluginError` or `MissingExtra` when it may not be served.
    """
    import anyio

    from atomserve.configuration.load import load_settings
    from atomserve.hosting.foreign import load_app

    settings = load_settings(config_file=None, environ=os.environ, flags={}).settings
    with redirect_stdout(sys.stderr):  # whatever the app prints is none of the report
        foreign = load_app(source, settings)
        took = anyio.run(try_out, foreign, settings)
    if as_json:
        steps = [{"what": what, "seconds": seconds} for what, seconds in took.items()]
        print(json.dumps({"ok": True, "name": foreign.name, "steps": steps}, indent=2))
        return 0
    print(f"{foreign.name}: {type(foreign.app).__name__} from {source.argument}")
    for what, seconds in took.items():
        print(f"{what}: {seconds:.2f} s")
    print(f"{foreign.name} may be served")
    return 0


async def try_out(foreign: Foreign, settings: Settings) -> dict[str, float]:
    """Start and stop the app; return how many seconds each took.

    Raises `PluginError` when it does not start.
    """
    import anyio

    from atomserve.errors import PluginError
    from atomserve.hosting.hosted import HostedApp

    hosted = HostedApp(foreign.name, foreign.app, patience=settings.unload_timeout)
    settled = anyio.Event()
    hosted.watch(lambda _, state, __: None if state == "loading" else settled.set())
    began = time.perf_counter()
    async with hosted.running():
        await settled.wait()
        started = time.perf_counter()
    stopped = time.perf_counter()
    if hosted.state == "failed":
        raise PluginError(f"app {hosted.name!r}: {hosted.detail}")
    return {"start": started - began, "stop": stopped - started}
