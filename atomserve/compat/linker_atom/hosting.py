"""The loader ``linker``: the application in a service's `server.py`, found without running it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog
from starlette.applications import Starlette

from atomserve import control
from atomserve.compat.linker_atom import finder, sources
from atomserve.compat.linker_atom.variables import service_environment
from atomserve.errors import MissingExtra, PluginError
from atomserve.hosting.foreign import Foreign
from atomserve.loading import load_script
from atomserve.media.sources import Sources
from atomserve.plugins import Source, python_place
from atomserve.settings import Settings

LONGEST = control.MAX_FRAME // 8
"""Characters of META that are passed on."""

log = structlog.get_logger("atomserve.app")


def load(source: Source, settings: Settings) -> Foreign:
    """Import the file as ``python server.py --port N`` would, and find its application.

    From here on the process is the file's: its arguments, its environment, its module names.

    Raises:
        PluginError: the file cannot be imported, or has no application.
        MissingExtra: FastAPI is not installed.
    """
    try:
        importlib.import_module("fastapi")
    except ImportError as exc:
        message = f"{source}: needs FastAPI: pip install 'atomserve[linker]'"
        raise MissingExtra(message) from exc
    place = python_place(source.argument)
    assert place is not None, "a source is made only of what has this form"
    path = Path(place.target)
    finder.install()
    sources.use(Sources(settings.media))
    _stand_in(path, settings)
    with _without_server():
        module = load_script(source, path)
    app = _application(module, place.attribute, source)
    return Foreign(source.name or "app", app, _told(source))


def _stand_in(path: Path, settings: Settings) -> None:
    """Give the process the arguments, the search path and the environment of the file's own run."""
    sys.argv[:] = [str(path), "--port", str(settings.port)]
    sys.path.insert(0, str(path.parent))
    os.environ.update(service_environment(settings))


@contextmanager
def _without_server() -> Iterator[None]:
    """Supply what such files import of older uvicorns; keep them from serving at import."""
    if importlib.util.find_spec("uvicorn") is None:
        yield
        return
    uvicorn: Any = importlib.import_module("uvicorn")
    auto: Any = importlib.import_module("uvicorn.loops.auto")
    if not hasattr(auto, "auto_loop_setup"):
        auto.auto_loop_setup = _set_up_nothing
    run, uvicorn.run = uvicorn.run, _run_nothing
    try:
        yield
    finally:
        uvicorn.run = run


def _set_up_nothing(use_subprocess: bool = False) -> None:
    """Leave the event loop alone: it runs already."""


def _run_nothing(*_: Any, **__: Any) -> None:
    log.warning("app.uvicorn_skipped", reason="atomserve serves this file's application")


def _application(module: ModuleType, attribute: str, source: Source) -> Starlette:
    """Return the module's application: the named one, the one called app, or the only one."""
    found = {name: each for name, each in vars(module).items() if isinstance(each, Starlette)}
    wanted = attribute or "app"
    if wanted in found:
        return found[wanted]
    if not attribute and len({id(each) for each in found.values()}) == 1:
        return next(iter(found.values()))
    raise PluginError(
        f"{source}: expected a FastAPI application called {wanted} at the top level of the file, "
        f"found {' and '.join(found) or 'none'}"
    )


def _told(source: Source) -> control.AppDescribed:
    prefix, meta = (
        os.environ.get(name, "").encode(errors="replace").decode()
        for name in ("ATOM_API_PREFIX", "META")
    )
    if len(prefix) + len(meta) > LONGEST:
        raise PluginError(f"{source}: META has over {LONGEST} characters")
    return control.AppDescribed(prefix, meta)
