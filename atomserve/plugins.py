"""Which plugins are installed and which are asked for; nothing here imports one."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from atomserve.errors import PluginError
from atomserve.settings import MODEL_NAME, Settings

PLUGINS = "atomserve.plugins"
LOADERS = "atomserve.loaders"
OWN_LOADERS = {"aiges": "atomserve.compat.aiges.serving:prepare"}
"""Loaders that are always there."""
APP_LOADERS = {
    "asgi": "atomserve.hosting.foreign:load_asgi",
    "linker": "atomserve.compat.linker_atom.hosting:load",
}
"""Loaders of applications, which are hosted: each is a `atomserve.hosting.foreign.AppLoader`."""

_FILE = re.compile(r"(?P<path>.+\.py)(:(?P<attribute>[^\W\d]\w*))?")
_CLASS = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*(\.\w+)*)")
_FORMS = "an installed plugin's name, package.module:Class or path/to/file.py[:Class]"


class Installed(msgspec.Struct, frozen=True):
    """An entry point of an installed distribution; ``rivals`` are others that use its name."""

    name: str
    value: str
    distribution: str
    version: str
    rivals: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from; the name is None where the class will decide it.

    ``target`` is a module (kinds "installed" and "class"), an absolute path ("file") or a loader
    with its argument ("loader", and "app" for one of `APP_LOADERS`); an empty ``attribute`` means
    the only wrapper in the file.
    """

    name: str | None
    kind: Literal["installed", "class", "file", "loader", "app"]
    target: str
    attribute: str = ""
    spec: str
    distribution: str = ""
    version: str = ""

    @property
    def origin(self) -> tuple[str, str, str]:
        """What two sources of one and the same model have in common."""
        return self.kind, self.target, self.attribute

    @property
    def loader(self) -> str:
        """The loader's name, if it goes to one."""
        return self.target.partition(":")[0]

    @property
    def argument(self) -> str:
        """What that loader is asked for."""
        return self.target.partition(":")[2]

    def __str__(self) -> str:
        return (
            f"{self.spec} ({self.distribution} {self.version})" if self.distribution else self.spec
        )


class Place(NamedTuple):
    """Where some Python object is: in a module, or in a file (by its absolute path)."""

    kind: Literal["class", "file"]
    target: str
    attribute: str


class _Known(NamedTuple):
    plugins: Sequence[Installed]
    loaders: Collection[str]


def installed(group: str = PLUGINS) -> list[Installed]:
    """Return the entry points of ``group`` by name, as the installed distributions list them."""
    found = {
        Installed(point.name, point.value, point.dist.name, point.dist.version)
        for point in metadata.entry_points(group=group)
        if point.dist is not None
    }
    rows = sorted(found, key=lambda row: (row.name, row.distribution, row.value))
    return [
        msgspec.structs.replace(
            row, rivals=tuple(str(other) for other in rows if _clash(row, other))
        )
        for row in rows
    ]


def loaders() -> dict[str, str]:
    """Return where each loader lies, by its name."""
    return {row.name: row.value for row in installed(LOADERS)} | OWN_LOADERS


def resolve(
    settings: Settings, available: Sequence[Installed], loaders: Collection[str] = ()
) -> list[Source]:
    """Return what the settings ask to serve: ``plugins`` first, then the models' tables.

    Raises `PluginError` with one line for what cannot be understood or found, and when nothing is
    asked for. A table without ``plugin`` configures the model of its name, or names a plugin.
    """
    known = _Known(available, loaders)
    sources = [_asked(spec, known) for spec in _specs(settings.plugins)]
    served = {source.name for source in sources}
    for name, model in settings.models.items():
        if model.plugin is not None:
            written = f'[models.{name}] plugin = "{model.plugin}"'
            sources.append(_source(model.plugin, name, written, known))
        elif name not in served and (None not in served or _rows(name, known)):
            sources.append(_source(name, name, f"[models.{name}]", known))
    if not sources:
        raise PluginError(
            "nothing to serve: name a plugin with --plugins, or in [models.NAME] of "
            f"atomserve.toml ({_listed(known)})"
        )
    sources = list({(source.name, *source.origin): source for source in sources}.values())
    _check_apps(settings, [source for source in sources if source.kind == "app"])
    by_name((source.name, source) for source in sources if source.name is not None)
    return sources


def by_name(named: Iterable[tuple[str, Source]]) -> dict[str, Source]:
    """Return the sources by the names they are served under.

    Raises `PluginError` when a name breaks the rule or stands for two models.
    """
    found: dict[str, Source] = {}
    for name, source in named:
        other = found.setdefault(checked_name(name, source.spec), source)
        if other.origin != source.origin:
            raise PluginError(
                f'two models are called "{name}": {other} and {source}; '
                "give one of them another name with NAME="
            )
    return found


def check_tables(settings: Settings, served: Collection[str]) -> None:
    """Raise `PluginError` for a ``[models.NAME]`` that configures none of the ``served`` models."""
    for name in settings.models:
        if name not in served:
            raise PluginError(
                f"[models.{name}]: no model of this name is served{_meant(name, served)}; "
                f"served: {', '.join(sorted(served))}"
            )


def checked_name(name: str, spec: str) -> str:
    """Return ``name`` if a model may be called so."""
    if not re.match(MODEL_NAME, name):
        raise PluginError(
            f'{spec}: "{name}" is no name for a model (at most 128 of A-Z a-z 0-9 . _ -, a letter '
            "or digit first); put another before it with NAME="
        )
    return name


def python_place(text: str) -> Place | None:
    """Read ``package.module:Class`` or ``path/to/file.py[:Class]``."""
    if file := _FILE.fullmatch(text):
        path = Path(file["path"]).expanduser().absolute()
        return Place("file", str(path), file["attribute"] or "")
    if place := _CLASS.fullmatch(text):
        return Place("class", place["module"], place["attribute"])
    return None


def _check_apps(settings: Settings, apps: Sequence[Source]) -> None:
    # Their paths are their own and may be the same; what the file of one does to its process
    # (environment, arguments, folder) the other would have to live with.
    if len(apps) > 1:
        raise PluginError(
            f"{apps[0]} and {apps[1]} are two apps, and an instance hosts one: run an instance "
            "for each"
        )
    for app in apps:
        if app.name in settings.models:
            raise PluginError(
                f"[models.{app.name}]: {app.target} is an app, which has none of a model's "
                "settings: name it in plugins alone"
            )


def _specs(plugins: Iterable[str]) -> Iterator[str]:
    for written in plugins:
        yield from (spec.strip() for spec in written.split(",") if spec.strip())


def _asked(spec: str, known: _Known) -> Source:
    name, given, target = spec.partition("=")
    if not given:
        return _source(spec, None, spec, known)
    return _source(target.strip(), checked_name(name.strip(), spec), spec, known)


def _source(target: str, name: str | None, spec: str, known: _Known) -> Source:
    loader, colon, argument = target.partition(":")
    if colon and loader in APP_LOADERS:
        return _app(loader, argument, name, spec)
    if colon and loader in known.loaders:
        return Source(name=name, kind="loader", target=target, spec=spec)
    if place := _existing(target, spec):
        return Source(
            name=name,
            kind=place.kind,
            target=place.target,
            attribute=place.attribute,
            spec=spec,
        )
    if rows := _rows(target, known):
        return _from_row(rows[0], name, spec)
    raise PluginError(f"{spec}: {_missing(target, known)}")


def _app(loader: str, argument: str, name: str | None, spec: str) -> Source:
    place = _existing(argument, spec)
    if place is None or (loader == "linker" and place.kind != "file"):
        form = "linker:path/to/server.py" if loader == "linker" else "asgi:package.module:app"
        raise PluginError(f"{spec}: expected {form}")
    target = ":".join(part for part in (loader, place.target, place.attribute) if part)
    return Source(name=name or "app", kind="app", target=target, spec=spec)


def _existing(text: str, spec: str) -> Place | None:
    place = python_place(text)
    if place is not None and place.kind == "file" and not Path(place.target).is_file():
        raise PluginError(f"{spec}: there is no file {place.target}")
    return place


def _from_row(row: Installed, name: str | None, spec: str) -> Source:
    if row.rivals:
        raise PluginError(
            f'{spec}: {row} and {" and ".join(row.rivals)} both install a plugin "{row.name}"; '
            f"uninstall one, or name its class: {row.name}={row.value}"
        )
    place = _CLASS.fullmatch(row.value.partition("[")[0].strip())
    if place is None:
        raise PluginError(
            f'{spec}: the entry point "{row.name}" of {row} is "{row.value}", not '
            "package.module:Class"
        )
    return Source(
        name=checked_name(row.name, spec) if name is None else name,
        kind="installed",
        target=place["module"],
        attribute=place["attribute"],
        spec=spec,
        distribution=row.distribution,
        version=row.version,
    )


def _rows(name: str, known: _Known) -> list[Installed]:
    return [row for row in known.plugins if row.name == name]


def _clash(row: Installed, other: Installed) -> bool:
    return row.name == other.name and row != other


def _missing(target: str, known: _Known) -> str:
    prefix, colon, _ = target.partition(":")
    if "=" in target:
        return "NAME= stands only once, before what --plugins names"
    if colon or "/" in target or not target:
        loader = f', and no loader "{prefix}" is installed' if re.fullmatch(r"\w+", prefix) else ""
        return f"expected {_FORMS}{loader}"
    names = [row.name for row in known.plugins]
    return f'no plugin "{target}" is installed{_meant(target, names)} ({_listed(known)})'


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _listed(known: _Known) -> str:
    names = Counter(row.name for row in known.plugins)
    return f"installed: {', '.join(names) or 'none'}"
