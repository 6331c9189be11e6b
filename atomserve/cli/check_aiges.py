"""``atomserve check`` of an AIGES wrapper: call it with test values, or what the user gives."""

from __future__ import annotations

import json
import mimetypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple

from atomserve.cli.inputs import contents
from atomserve.cli.trial_reports import Report, show
from atomserve.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from atomserve.compat.aiges.binding import Bound
    from atomserve.compat.aiges.exchanges import Given
    from atomserve.compat.aiges.loader import Loaded

FAILED = 1
MOST_NAMED = 3
"""Threads that are left, by their names; of more it is told how many."""


class Asked(NamedTuple):
    """What the command line asks for."""

    modes: Sequence[str]
    inputs: Sequence[str]
    params: Sequence[str]
    timeout: float


def check_aiges(path: str, asked: Asked, *, as_json: bool) -> int:
    """Try the wrapper at ``path`` and tell what happened; 0 if it may be served.

    Raises:
        PluginError: it cannot be imported or made, or lacks a mode that is asked for.
        ConfigError: an input is none.
    """
    from atomserve.compat.aiges.loader import loaded

    given = read(asked)  # before the working directory becomes the wrapper's
    # Whatever the wrapper prints is no JSON.
    printing = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with printing, loaded(path) as found:
        report = tried(found, asked, given)
    if as_json:
        print(json.dumps(report.document(), indent=2, ensure_ascii=False))
    else:
        show(report)
    code = 0 if report.trials.ok else FAILED
    leave_threads(code)
    return code


def read(asked: Asked) -> Given:
    """Read what is sent instead of test values.

    Raises `ConfigError` for what is not ``KEY=VALUE``, or a file that cannot be read.
    """
    from atomserve.compat.aiges.exchanges import Given

    inputs = {}
    for key, value in pairs("--input", asked.inputs):
        if value.startswith("@"):
            inputs[key] = contents(value[1:], key), type_of(value)
        else:
            inputs[key] = value.encode(), 0
    return Given(dict(pairs("--param", asked.params)), inputs)


def pairs(option: str, written: Sequence[str]) -> Iterator[tuple[str, str]]:
    for argument in written:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise ConfigError(f"{option} {argument}: expected KEY=VALUE")
        yield key, value


def type_of(file: str) -> int:
    """Return the number of a file's type, as its name tells it; else it is text."""
    from atomserve.compat.aiges.declared import DATA_TYPES

    numbers = {name: number for number, name in DATA_TYPES.items()}
    return numbers.get((mimetypes.guess_type(file)[0] or "").partition("/")[0], 0)


def tried(found: Loaded, asked: Asked, given: Given) -> Report:
    """Make the wrapper and try it in each mode that is asked for, or in all that it has.

    Raises `PluginError` if it cannot be made, or lacks a mode that is asked for.
    """
    from atomserve.compat.aiges.local import Trials, modes_of, trials

    bound = made(found)
    own = modes_of(bound)
    missing = [mode for mode in asked.modes if mode not in own]
    if missing:
        raise PluginError(f"{found.path}: has nothing for {missing[0]}; it has {' and '.join(own)}")
    config, notes = config_of(found)
    done = trials(
        bound,
        found.declared,
        config,
        modes=[mode for mode in own if mode in asked.modes] or own,
        patience=asked.timeout,
        given=given,
    )
    names = threads()
    left = [f"{name} still runs after wrapperFini" for name in names[:MOST_NAMED]]
    if len(names) > MOST_NAMED:
        left.append(f"{len(names) - MOST_NAMED} more threads still run")
    told = Trials(done.outcomes, notes + done.notes + left)
    return Report(found.declared.service_id, found.generation, found.declared.path, told)


def made(found: Loaded) -> Bound:
    """Make the wrapper.

    Raises `PluginError` for whatever its constructor raises.
    """
    try:
        return found.make()
    except PluginError:
        raise
    except Exception as exc:
        raise PluginError(f"{found.path}: {type(exc).__name__}: {exc}") from exc


def config_of(found: Loaded) -> tuple[Any, list[str]]:
    """Return what `wrapperInit` gets, and what is odd about that."""
    toml = found.path.parent / "aiges.toml"
    notes = [f"{toml}: {key} is unknown" for key in found.config.unknown]
    own = getattr(found.target, "config", None)
    if found.config.wrapper or not own:
        return found.config.wrapper, notes
    told = "wrapperInit gets the class's config here, and [wrapper] of aiges.toml when it is served"
    return own, [*notes, told]


def threads() -> list[str]:
    """Name the threads that keep this process from ending."""
    main = threading.main_thread()
    return [each.name for each in threading.enumerate() if not each.daemon and each is not main]


def leave_threads(code: int) -> None:
    """End the process here and now if threads of the wrapper's would keep it for ever."""
    if threads():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
