"""Import the classes that sources name, with every failure as one line."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import json
import operator
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from atomserve.errors import PluginError
from atomserve.plugins import Installed, Source, checked_name, resolve
from atomserve.settings import Settings

# The child's search path is its parent's, so that both mean the same plugin.
_CHILD = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from atomserve.loading import answer_probe
answer_probe(sys.argv[2], sys.argv[3])
"""


class ImportState(msgspec.Struct, frozen=True):
    """Whether a plugin can be imported, and the line that says why not."""

    ok: bool
    reason: str = ""


def load_class(source: Source, *, base: type) -> type:
    """Import the class that ``source`` names, a subclass of ``base``.

    Raises `PluginError` with one line that names the plugin, its distribution and the cause.
    """
    if source.kind in ("loader", "app"):
        raise PluginError(f"{source}: names a loader, not a wrapper class")
    with _importing(source):
        module = load_file(Path(source.target)) if source.kind == "file" else _module(source)
        found = _found(module, source, base)
    if not isinstance(found, type):
        kind = type(found).__name__
        raise PluginError(f"{source}: {source.attribute} is not a class but of type {kind}")
    if not issubclass(found, base):
        raise PluginError(f"{source}: {found.__name__} is not a subclass of {base.__name__}")
    return found


def load_object(source: Source) -> Any:
    """Import whatever ``source``, of kind "class" or "file", names; raises as `load_class` does."""
    with _importing(source):
        module = load_file(Path(source.target)) if source.kind == "file" else _module(source)
        return _attribute(module, source)


def load_script(source: Source, path: Path) -> ModuleType:
    """Import the file at ``path`` under its own name, as what runs it would; raises as above."""
    name = path.stem
    with _importing(source):
        return load_file(path, name=name if name not in sys.modules else "")


def likely_name(source: Source) -> str | None:
    """Return the name that ``source`` will be served under, as far as that is known unimported."""
    if source.name is not None or not source.attribute:
        return source.name
    return _snake_case(source.attribute)


def served_name(source: Source, cls: type) -> str:
    """Return the name that ``cls`` is served under: the source's, or its own in snake_case."""
    if source.name is not None:
        return source.name
    return checked_name(_snake_case(cls.__name__), source.spec)


def _snake_case(name: str) -> str:
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words).lower()


def probe(plugin: Installed, *, base: type, timeout: float = 30.0) -> ImportState:
    """Import ``plugin`` in a process of its own, which may crash or hang."""
    arguments = (json.dumps(sys.path), f"{base.__module__}:{base.__qualname__}")
    command = [sys.executable, "-c", _CHILD, *arguments, msgspec.json.encode(plugin).decode()]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ImportState(False, f"{plugin.name} ({plugin}): still importing after {timeout:g} s")
    if done.returncode < 0:
        death = signal.strsignal(-done.returncode)
        return ImportState(False, f"{plugin.name} ({plugin}): the import ended Python: {death}")
    try:
        return msgspec.json.decode(done.stdout, type=ImportState)
    except msgspec.DecodeError:
        code = done.returncode
        return ImportState(False, f"{plugin.name} ({plugin}): the import ended Python: exit {code}")


def answer_probe(base: str, plugin: str) -> None:
    """Be the child of `probe`: write the state where the plugin's own output cannot be."""
    answers = os.dup(1)
    os.dup2(2, 1)
    row = msgspec.json.decode(plugin, type=Installed)
    module, _, name = base.partition(":")
    try:
        alone = msgspec.structs.replace(row, rivals=())
        (source,) = resolve(Settings(plugins=(row.name,)), [alone])
        load_class(source, base=operator.attrgetter(name)(importlib.import_module(module)))
        state = ImportState(True)
    except PluginError as exc:
        state = ImportState(False, str(exc))
    os.write(answers, msgspec.json.encode(state))
    os._exit(0)  # threads that the plugin started must not keep the answer waiting


def _module(source: Source) -> ModuleType:
    here = str(Path.cwd())
    if source.kind == "class" and not {"", here} & set(sys.path):
        sys.path.append(here)  # last: a file in this folder must not hide an installed package
    return importlib.import_module(source.target)


def load_file(path: Path, name: str = "") -> ModuleType:
    """Import the file at ``path`` as ``name``, or under a name that no other file has."""
    if not name:
        stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
        name = f"atomserve_file_{stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not Python code")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # first, as for a script
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _found(module: ModuleType, source: Source, base: type) -> Any:
    if source.attribute:
        return _attribute(module, source)
    own = {
        found.__name__: found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, base)
        if found.__module__ == module.__name__
    }
    if len(own) != 1:
        counted = " and ".join(own) or "none"
        advice = "name one: file.py:Class" if own else "write one"
        raise PluginError(
            f"{source}: expected one subclass of {base.__name__} in the file, found {counted}; "
            f"{advice}"
        )
    return next(iter(own.values()))


def _attribute(module: ModuleType, source: Source) -> Any:
    try:
        return operator.attrgetter(source.attribute)(module)
    except AttributeError as exc:
        close = difflib.get_close_matches(source.attribute, vars(module), n=1)
        advice = f"; did you mean {close[0]}?" if close else ""
        raise PluginError(f"{source}: {source.target} has no {source.attribute}{advice}") from exc


@contextmanager
def _importing(source: Source) -> Iterator[None]:
    try:
        yield
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # a plugin may raise anything, SystemExit and panics included
        raise PluginError(f"{source}: cannot be imported: {cause_of(exc)}") from exc


def cause_of(exc: BaseException) -> str:
    """Say in one line what ``exc`` is, and where in a plugin's own code it was raised."""
    text = " ".join(str(exc).split())[:300]
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if not frame.filename.startswith("<frozen ")
        if frame.filename not in (__file__, importlib.__file__)
    ]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(exc).__name__}{': ' if text else ''}{text}{where}"
