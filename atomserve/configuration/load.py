"""Read the settings file, the environment and the flags, once, into Settings with origins."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from atomserve.configuration.catalogue import Key, Setting, catalogue, dotted, generic
from atomserve.configuration.conflicts import conflicts
from atomserve.configuration.origins import (
    Statement,
    brief,
    in_environment,
    in_flags,
    in_table,
    models_named,
    read_file,
)
from atomserve.errors import ConfigError
from atomserve.settings import TELEMETRY, Settings


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and for each one's dotted path where its value comes from."""

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()
    """What was wrong and is passed over."""


class Explained(NamedTuple):
    """One line of ``atomserve config``; ``value`` is written as in the settings file."""

    path: str
    value: str
    origin: str


def load_settings(
    *, config_file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]
) -> Loaded:
    """Decode defaults < settings file < ``environ`` < ``flags``, checked together.

    Flags are keyed by dotted path; None and empty lists count as not given. Raises `ConfigError`
    with one line that names the setting, where it was written and what was expected; of telemetry,
    which must not keep a service from starting, such lines are the ``warnings``.
    """
    table, origin = read_file(config_file, environ)
    in_file = list(in_table(table, (), origin))
    models = models_named(table, environ, flags)
    tree: dict[str, Any] = {"models": {name: {} for name in table.get("models", {})}}
    origins: dict[Key, str] = {}
    warnings: list[str] = []
    for given in (*in_file, *in_environment(environ, models), *in_flags(flags)):
        branch = functools.reduce(
            lambda node, part: node.setdefault(part, {}), given.key[:-1], tree
        )
        try:
            value = _read(given)
        except ConfigError as exc:
            if given.key[0] not in TELEMETRY:
                raise
            warnings.append(f"{exc}; it is passed over")
            continue
        name, origin = given.key[-1], given.origin
        if given.within and name in branch:
            value = _merged(branch[name], value)
            origin = f"{origins[given.key]}, {origin}"
        branch[name] = value
        origins[given.key] = origin
    settings = msgspec.convert(tree, Settings)
    for path, advice in conflicts(settings):
        origin = origins.get(tuple(path.split(".")), "default")
        raise ConfigError(f"{path} ({origin}): {advice}")
    named = {dotted(key): origins.get(key, "default") for key, _ in _every(settings)}
    return Loaded(settings, named, tuple(warnings))


def explain(loaded: Loaded) -> list[Explained]:
    """Return every setting with its value and origin, in the order of the documentation."""
    return [
        Explained(path, setting.show(_value(loaded.settings, key)), loaded.origins[path])
        for key, setting in _every(loaded.settings)
        for path in [dotted(key)]
    ]


def _merged(table: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return ``table`` with what ``more`` says in its place."""
    merged = dict(table)
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _read(given: Statement) -> Any:
    setting = catalogue()[generic(given.key)]
    value = given.value
    for part in reversed(given.within):
        value = {part: value}
    try:
        return setting.read(value, text=given.text)
    except (ValueError, msgspec.MsgspecError) as exc:
        # What a table holds is the plugin's affair, and may be a secret.
        shown = "" if isinstance(setting.default, dict) else f" = {brief(given.value)}"
        where = f"{dotted(given.key)}{shown} ({given.origin})"
        raise ConfigError(f"{where}: expected {setting.form}") from exc


def _every(settings: Settings) -> Iterator[tuple[Key, Setting]]:
    own = [setting for key, setting in catalogue().items() if key[0] != "models"]
    of_models = [setting for key, setting in catalogue().items() if key[0] == "models"]
    yield from ((setting.key, setting) for setting in own)
    for name in settings.models:
        yield from (((*setting.key[:1], name, *setting.key[2:]), setting) for setting in of_models)


def _value(settings: Settings, key: Key) -> Any:
    def step(node: Any, part: str) -> Any:
        return node[part] if isinstance(node, dict) else getattr(node, part)

    return functools.reduce(step, key, settings)
