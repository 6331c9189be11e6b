"""What the settings file, the environment and the flags say, each statement with its origin."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from atomserve.configuration.catalogue import (
    MODEL,
    VARIABLE_PREFIX,
    Key,
    catalogue,
    dotted,
    folded,
    generic,
    variable,
)
from atomserve.configuration.linker_environment import overrides
from atomserve.errors import ConfigError
from atomserve.settings import MODEL_NAME

KEY_OF_MODEL = ("models", MODEL)
TABLES = ((*KEY_OF_MODEL, "config"), (*KEY_OF_MODEL, "env"))
"""Settings of which a variable may say one place alone."""

FILE = "atomserve.toml"
FILE_VARIABLE = "ATOMSERVE_CONFIG"

# Kubernetes sets these in every pod beside a service called atomserve or atomserve-something.
_SERVICE_NAME = re.compile(
    r"ATOMSERVE_(\w+_)?(SERVICE_(HOST|PORT)|PORT_[0-9]+_(TCP|UDP|SCTP))(_\w+)?", re.ASCII
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class Statement(NamedTuple):
    """One setting as written; in ``text`` a number may still be a string."""

    key: Key
    value: Any
    origin: str
    text: bool
    within: Key = ()
    """The one place that it says of a setting that is a table."""


def read_file(config_file: Path | None, environ: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return what the settings file holds, and its origin; only a file that is named must exist."""
    named = config_file or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    path = (named or Path(FILE)).absolute()
    if named is None and not path.exists():
        return {}, ""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), f"{FILE}:{path}"
    except OSError as exc:
        advice = "name another with --config"
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); {advice}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: not TOML: {exc}") from exc


def in_table(table: Mapping[str, Any], above: Key, origin: str) -> Iterator[Statement]:
    """Yield what the settings file says below ``above``."""
    for name, value in table.items():
        key = (*above, name)
        if generic(key) in catalogue():
            yield Statement(key, value, origin, text=False)
        elif not _holds_settings(key):
            raise _unknown(key, origin)
        elif isinstance(value, dict):
            yield from in_table(value, _checked(key, origin), origin)
        else:
            raise ConfigError(f"{dotted(key)} = {brief(value)} ({origin}): expected a table")


def in_environment(environ: Mapping[str, str], models: set[str]) -> Iterator[Statement]:
    """Yield what the environment says, weakest first; ``models`` are the names it may mean."""
    for path, value, origin, within in overrides(environ):
        yield Statement(tuple(path.split(".")), value, origin, text=not within, within=within)
    entries = []
    for name, value in _own_variables(environ):
        origin = f"environment {name}"
        parts = name[len(VARIABLE_PREFIX) :].split("__")
        key: Key = tuple(part.lower() for part in parts)
        if key[0] == "models" and len(key) > 2:
            place = _field_of_model(key, models)
            called = _model_called("__".join(key[1:place]), models, origin)
            key = _checked(("models", called, key[place]), origin)
            if within := tuple(parts[place + 1 :]):
                entries.append(_entry(Statement(key, value, origin, text=False, within=within)))
                continue
        if generic(key) not in catalogue():
            raise _unknown(key, origin)
        yield Statement(key, value, origin, text=True)
    yield from entries  # stronger than a whole table


def _field_of_model(key: Key, models: set[str]) -> int:
    """Return where the setting's name stands in ``key``, after the model's folded name.

    That name may hold the separator itself: what is known to be one wins.
    """
    last = len(key) - 1
    places = [place for place in range(2, last) if (*KEY_OF_MODEL, key[place]) in TABLES]
    known = {folded(name) for name in models}
    for place in (*places, last):
        if "__".join(key[1:place]) in known:
            return place
    return min(places, default=last)


def _entry(given: Statement) -> Statement:
    """Spell a place as its table does: a variable's name as it is, a key in lower case.

    A value is text, which the plugin's configuration may want to be a number, or an array or
    object in JSON.
    """
    if given.key[-1] == "env":
        return given._replace(within=("__".join(given.within),))
    value = given.value
    if value.lstrip()[:1] in ("[", "{"):
        with suppress(ValueError):
            value = json.loads(value)
    return given._replace(value=value, within=tuple(part.lower() for part in given.within))


def in_flags(flags: Mapping[str, Any]) -> Iterator[Statement]:
    """Yield what the command line says; None and empty lists say nothing."""
    for path, value in flags.items():
        key = tuple(path.split("."))
        setting = catalogue().get(generic(key))
        if setting is None:
            raise _unknown(key, "command line")
        if value is not None and value not in ([], ()):
            spelled = setting.flags or ("command line",)
            yield Statement(key, value, spelled[-1 if value is False else 0], text=True)


def models_named(
    table: Mapping[str, Any], environ: Mapping[str, str], flags: Mapping[str, Any]
) -> set[str]:
    """Return the models' names as written, for the environment can only spell them folded."""
    own = {name.upper(): value for name, value in _own_variables(environ)}
    names = set(table.get("models", {}))
    for given in (table.get("plugins"), own.get("ATOMSERVE_PLUGINS"), flags.get("plugins")):
        specs = given if isinstance(given, list | tuple) else [given or ""]
        for spec in (part.strip() for item in specs for part in str(item).split(",")):
            names.add(spec.partition("=")[0])
    return {name for name in names if re.match(MODEL_NAME, name)}


def _own_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        upper = name.upper()
        of_service = _SERVICE_NAME.fullmatch(upper) or (
            upper.endswith("_PORT") and _SERVICE_ADDRESS.match(value)
        )
        if upper.startswith(VARIABLE_PREFIX) and upper != FILE_VARIABLE and not of_service:
            yield name, value


def _model_called(written: str, models: set[str], origin: str) -> str:
    matching = sorted(name for name in models if folded(name) == written)
    if len(matching) > 1:
        raise ConfigError(
            f"models ({origin}): {' and '.join(matching)} read the same in the environment; "
            "use the settings file for them"
        )
    return matching[0] if matching else written


def _checked(key: Key, origin: str) -> Key:
    if key[0] == "models" and len(key) > 1 and not re.match(MODEL_NAME, key[1]):
        raise ConfigError(
            f"{dotted(key[:2])} ({origin}): a model's name is at most 128 of A-Z a-z 0-9 . _ - "
            "and begins with a letter or digit"
        )
    return key


def _holds_settings(key: Key) -> bool:
    return any(known[: len(key)] == generic(key) for known in catalogue())


def _unknown(key: Key, origin: str) -> ConfigError:
    """Return the error for ``key``; the setting it may mean is spelled as ``origin`` does."""
    in_model = key[0] == "models" and len(key) > 2
    nearby = [(*key[:2], *there[2:]) if in_model else there for there in catalogue()]
    nearby += [there[:1] for there in nearby if len(there) > 1]
    known = {dotted(there): there for there in nearby if MODEL not in there}
    advice = "`atomserve config` lists them all"
    for close in difflib.get_close_matches(dotted(key), known, n=1):
        spelled = variable(known[close]) if origin.startswith("environment") else close
        advice = f"did you mean {spelled}?"
    return ConfigError(f"{dotted(key)} ({origin}): no such setting; {advice}")


def brief(value: Any) -> str:
    """Write ``value`` for an error message."""
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:77]}..."
