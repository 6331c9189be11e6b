"""Turn ``--input name=value`` into the request that a model's signature asks for."""

from __future__ import annotations

import json
import mimetypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from atomserve.errors import ConfigError

OCTETS = "application/octet-stream"


class Input(msgspec.Struct):
    """One input or output, as a server describes it."""

    name: str
    kind: str
    schema: dict[str, Any] = {}
    scalar: bool = False
    media_type: str = ""

    @property
    def is_bytes(self) -> bool:
        return bool(self.media_type) and self.kind != "text"


class Described(msgspec.Struct):
    """What a server says of a model."""

    inputs: list[Input]
    output: Input
    takes: str = "call"
    streams: bool = False


class File(msgspec.Struct):
    """A file that goes with a request."""

    name: str
    data: bytes
    media_type: str


class Call(msgspec.Struct):
    """The parts of a request that depend on its inputs; `httpx2` knows them by these names."""

    params: dict[str, str] = {}
    headers: dict[str, str] = {}
    content: bytes | None = None
    files: list[tuple[str, tuple[str | None, bytes, str]]] | None = None


def build(model: Described, written: Sequence[str]) -> Call:
    """Choose the form: a raw body for one file with plain values, a form for more, else JSON.

    Raises:
        ConfigError: an input is unknown, or its value does not fit.
    """
    values: dict[str, Any] = {}
    for name, value in (read(model, argument) for argument in written):
        if name in values:
            raise ConfigError(f"--input {name}: is given twice")
        values[name] = value
    known = {field.name: field for field in model.inputs}
    files = {name: value for name, value in values.items() if isinstance(value, File)}
    others = {name: value for name, value in values.items() if name not in files}
    if not files:
        body = json.dumps(values, ensure_ascii=False).encode()
        return Call(headers={"Content-Type": "application/json"}, content=body)
    (first, *more) = files.values()
    raw = [field for field in model.inputs if field.is_bytes]
    if not more and len(raw) == 1 and all(known[name].scalar for name in others):
        params = {name: as_text(value) for name, value in others.items()}
        headers = {"Content-Type": first.media_type}
        return Call(params=params, headers=headers, content=first.data)
    parts: list[tuple[str, tuple[str | None, bytes, str]]] = [
        (name, (file.name, file.data, file.media_type)) for name, file in files.items()
    ]
    for name, value in others.items():
        plain = known[name].scalar
        text = as_text(value) if plain else json.dumps(value, ensure_ascii=False)
        media_type = "text/plain; charset=utf-8" if plain else "application/json"
        parts.append((name, (None, text.encode(), media_type)))
    return Call(files=parts)


def read(model: Described, argument: str) -> tuple[str, Any]:
    """Return the name and value of one ``name=value`` or ``name=@file``."""
    name, given, text = argument.partition("=")
    field = next((field for field in model.inputs if field.name == name), None)
    if not given or field is None:
        names = ", ".join(field.name for field in model.inputs) or "none"
        raise ConfigError(f"--input {argument}: expected NAME=VALUE or NAME=@FILE; inputs: {names}")
    data = contents(text[1:], name) if text.startswith("@") else None
    if field.is_bytes and data is not None:
        return name, File(Path(text[1:]).name, data, media_type_of(text[1:], field))
    if data is not None:
        text = decoded(data, name)
    if field.kind == "blob":
        return name, File(name, text.encode(), OCTETS)
    if field.is_bytes and field.kind != "tensor":
        raise ConfigError(f"--input {name}: is a file: write {name}=@FILE")
    return name, value_of(field, text)


def contents(path: str, name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as exc:
        raise ConfigError(f"--input {name}: cannot read {path}: {exc.strerror}") from exc


def decoded(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"--input {name}: the file is not text in UTF-8") from exc


def media_type_of(path: str, field: Input) -> str:
    """Guess from the file's name; the server looks at the bytes anyhow."""
    if field.kind in ("tensor", "blob"):
        return field.media_type if path.endswith(".npy") else OCTETS
    guessed, _ = mimetypes.guess_type(path)
    return guessed if guessed and guessed.startswith(f"{field.kind}/") else OCTETS


def value_of(field: Input, text: str) -> Any:
    """Return the JSON value that ``text`` means where ``field`` is asked for."""
    if field.kind == "text" or is_text(field.schema):
        return text
    try:
        return json.loads(text)
    except ValueError as exc:
        if field.scalar:  # one of several words, or text with other choices beside it
            return text
        raise ConfigError(f"--input {field.name}: not JSON: {exc}") from exc


def is_text(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "string"


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
