"""Import a `wrapper.py` in this process, as its own engine would."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.configuration import AigesConfig, read_config
from atomserve.compat.aiges.declared import Declared, declared
from atomserve.compat.aiges.finder import NAMES, installed
from atomserve.compat.aiges.generations import Generation, construct, find, inherited
from atomserve.compat.aiges.signatures import FORMS
from atomserve.errors import PluginError

MODULE = "wrapper"
"""What a wrapper's module is called, whatever its file is called."""
_PLACES = ("wrapper.py", "wrapper/wrapper.py")


class Loaded:
    """An imported wrapper: what it declares, and how to make one."""

    def __init__(self, path: Path, module: ModuleType, config: AigesConfig) -> None:
        found = find(module)
        self.path = path
        self.module = module
        self.generation: Generation = found.generation
        self.target: Any = found.target
        self.config = config
        self.declared: Declared = declared(found.target, name=_name_of(path))

    def make(self, *, sugar: str | None = None) -> Bound:
        """Make a wrapper and bind its methods; a module of functions is its own only wrapper.

        Raises what the wrapper's constructor raises, and `PluginError`.
        """
        return Bound(construct(self.target), sugar=sugar)

    def has(self, method: str) -> bool:
        """Say whether the wrapper itself has ``method``, as `Bound.has` will."""
        forms = FORMS[self.generation]
        name = forms[method].attribute if method in forms else ""
        return callable(getattr(self.target, name, None)) and not inherited(self.target, name)

    def __repr__(self) -> str:
        return f"<Loaded {self.generation} {self.declared.service_id} from {self.path}>"


@contextmanager
def loaded(path: str | Path, *, prefer_real: bool = False) -> Iterator[Loaded]:
    """Import the wrapper at ``path``, a file or a folder, for as long as the context lasts.

    Until then the working directory is the wrapper's, its folder comes first in ``sys.path``, the
    module is called ``wrapper`` and the names of AIGES mean the shim: all of the process, so one
    process holds one wrapper. An ``aiges.toml`` beside the wrapper is read.

    Raises:
        PluginError: there is no wrapper, it cannot be imported, or another one is loaded.
        ConfigError: its ``aiges.toml`` is wrong.
    """
    file = find_file(path)
    folder = file.parent
    local = [name for name in NAMES if (folder / f"{name}.py").is_file()]
    with ExitStack() as stack:
        stack.enter_context(installed(prefer_real=prefer_real, local=local))
        stack.enter_context(_standing_in(folder))
        module = stack.enter_context(_imported(file))
        toml = folder / "aiges.toml"
        yield Loaded(file, module, read_config(toml) if toml.is_file() else AigesConfig())


def find_file(path: str | Path) -> Path:
    """Return the wrapper's file for a file or a folder.

    Raises `PluginError` if there is none.
    """
    given = Path(path).expanduser().absolute()
    if given.is_file():
        return given
    for place in _PLACES:
        if (given / place).is_file():
            return given / place
    raise PluginError(
        f"{path}: there is no {'file or folder' if not given.exists() else MODULE + '.py'}"
    )


def _name_of(path: Path) -> str:
    """Name a wrapper that has no ``serviceId`` after its file, or its folder's project."""
    if path.stem != MODULE:
        found = path.stem
    elif path.parent.name != MODULE:
        found = path.parent.name
    else:
        found = path.parent.parent.name
    return re.sub(r"[^A-Za-z0-9._-]", "_", found, flags=re.ASCII).lstrip("._-") or MODULE


@contextmanager
def _standing_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))


@contextmanager
def _imported(file: Path) -> Iterator[ModuleType]:
    if MODULE in sys.modules:
        other = getattr(sys.modules[MODULE], "__file__", MODULE)
        raise PluginError(f"{file}: {other} is loaded in this process; one process holds one")
    spec = importlib.util.spec_from_file_location(MODULE, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file}: is not Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        try:
            spec.loader.exec_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # a plugin may raise anything, SystemExit included
            text = " ".join(str(exc).split())[:300]
            raise PluginError(f"{file}: cannot be imported: {type(exc).__name__}: {text}") from exc
        yield module
    finally:
        sys.modules.pop(MODULE, None)
