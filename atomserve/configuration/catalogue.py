"""The table of all settings: where each one may be written, what it takes, what it is for."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from atomserve.configuration.linker_environment import SOURCES, VARIABLES
from atomserve.settings import Settings
from atomserve.units import Unit

VARIABLE_PREFIX = "ATOMSERVE_"
FLAG_ALIASES = {"api_processes": ("--workers",)}
MODEL = "NAME"
"""Stands for a model's name in a path."""

Key = tuple[str, ...]
"""A setting's place in the tree: ``("limits", "body")``."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WORDS = {"true": True, "1": True, "yes": True, "on": True} | {
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


class Setting(msgspec.Struct, frozen=True):
    """One setting: its place in the tree and its annotation, which says the rest."""

    key: Key
    type: Any
    default: Any

    @property
    def flags(self) -> tuple[str, ...]:
        """How the command line spells it; nothing for what only the file and environment set."""
        if len(self.key) > 1 or isinstance(self._node, inspect.DictType):
            return ()
        name = self.key[0].replace("_", "-")
        negated = (f"--no-{name}",) if isinstance(self._node, inspect.BoolType) else ()
        return (f"--{name}", *negated, *FLAG_ALIASES.get(self.key[0], ()))

    @property
    def variables(self) -> tuple[str, ...]:
        """How the environment spells it, our own name first; `META.key` is a part of one."""
        path = dotted(self.key)
        aliases = (alias for alias, setting in VARIABLES.items() if setting == path)
        return (variable(self.key), *aliases, *SOURCES.get(path, ()))

    @property
    def description(self) -> str:
        node = inspect.type_info(self.type)
        schema = node.extra_json_schema if isinstance(node, inspect.Metadata) else None
        return str((schema or {}).get("description", ""))

    @property
    def form(self) -> str:
        """What a value must look like, for people."""
        return _form(inspect.type_info(self.type))

    def read(self, raw: Any, *, text: bool) -> Any:
        """Return the value that ``raw`` stands for; numbers and words may be ``text``.

        Raises ValueError or `msgspec.ValidationError` for what does not fit.
        """
        if text and raw == "" and self.default is None:
            return None
        match self._node:
            case inspect.BoolType() if text and isinstance(raw, str):
                raw = _WORDS.get(raw.strip().lower(), raw)
            case inspect.VarTupleType() if isinstance(raw, str):
                raw = [part.strip() for part in raw.split(",") if part.strip()]
            case inspect.DictType():
                raw = _plain(json.loads(raw) if text and isinstance(raw, str) else raw)
            case inspect.StrType() if isinstance(raw, str):
                raw.encode()  # an environment may hold bytes that are no text
            case _ if self._unit:
                raw = self._unit.parse(raw)
        strict = not (text and isinstance(self._node, inspect.IntType))
        return msgspec.convert(raw, self.type, strict=strict)

    def show(self, value: Any) -> str:
        """Write ``value`` as the settings file takes it."""
        if value is None:
            return "unset"
        plain = self._unit.show(value) if self._unit else msgspec.to_builtins(value)
        return json.dumps(plain, ensure_ascii=False)

    @property
    def _node(self) -> inspect.Type:
        return _unwrapped(inspect.type_info(self.type))[0]

    @property
    def _unit(self) -> Unit | None:
        return _unwrapped(inspect.type_info(self.type))[1].get("unit")


@functools.cache
def catalogue() -> Mapping[Key, Setting]:
    """Return every setting by its place, in the order of the Structs; a model is called NAME."""
    return {setting.key: setting for setting in _walk(Settings, ())}


def generic(key: Key) -> Key:
    """Return ``key`` as `catalogue` knows it."""
    return (key[0], MODEL, *key[2:]) if key[0] == "models" and len(key) > 1 else key


def dotted(key: Key) -> str:
    """Write ``key`` as the settings file does: a model's name with a dot is quoted."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part) for part in key)


def variable(key: Key) -> str:
    """Write ``key`` as the environment does."""
    return VARIABLE_PREFIX + "__".join(map(folded, key)).upper()


def folded(name: str) -> str:
    """Return what is left of a model's name in the environment."""
    return re.sub(r"[-.]", "_", name).lower()


def _walk(struct: type[msgspec.Struct], key: Key) -> Iterator[Setting]:
    for field in msgspec.structs.fields(struct):
        here = (*key, field.name)
        node = inspect.type_info(field.type)
        if isinstance(node, inspect.StructType):
            yield from _walk(node.cls, here)
        elif isinstance(node, inspect.DictType) and isinstance(node.value_type, inspect.StructType):
            yield from _walk(node.value_type.cls, (*here, MODEL))
        else:
            factory = field.default_factory
            default = field.default if factory is msgspec.NODEFAULT else factory()
            yield Setting(here, field.type, default)


def _unwrapped(node: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """Return the type below its metadata and its ``| None``, with all the extras met."""
    extra: dict[str, Any] = {}
    while isinstance(node, inspect.Metadata | inspect.UnionType):
        if isinstance(node, inspect.Metadata):
            extra |= node.extra or {}
            node = node.type
        else:
            node = next(kind for kind in node.types if not isinstance(kind, inspect.NoneType))
    return node, extra


def _form(node: inspect.Type) -> str:
    node, extra = _unwrapped(node)
    unit: Unit | None = extra.get("unit")
    match node:
        case inspect.BoolType():
            form = "true or false"
        case inspect.LiteralType():
            form = " or ".join(f'"{value}"' for value in node.values)
        case inspect.VarTupleType():
            form = f"list of {_form(node.item_type)}"
        case inspect.DictType():
            form = "table"
        case inspect.IntType() | inspect.FloatType() if "form" not in extra:
            noun = f"{unit.noun} ({unit.example})" if unit else "whole number"
            form = noun + _range(node)
        case _:
            form = str(extra.get("form", "text"))
    return form


def _range(node: inspect.IntType | inspect.FloatType) -> str:
    if node.ge is not None and node.le is not None:
        return f" from {node.ge} to {node.le}"
    if node.gt is not None:
        return f", more than {node.gt:g}"
    return f", at least {node.ge:g}" if node.ge else ""


def _plain(table: Any) -> Any:
    """Return ``table`` with dates as text; raise ValueError for what has no JSON form."""
    plain = msgspec.to_builtins(table)
    if msgspec.json.decode(msgspec.json.encode(plain)) != plain:
        raise ValueError("holds a number that has no JSON form")
    return plain
