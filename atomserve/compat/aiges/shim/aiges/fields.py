"""The fields by which a wrapper says what it takes and gives."""

# ruff: noqa: PLR0917 - the order of arguments is what wrappers know
from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atomserve.compat.aiges.shim.aiges.core.types import AUDIO, IMAGE, STRING, VIDEO, DataOnce
from atomserve.compat.aiges.values import text

_log = logging.getLogger("aiges")


class Field:
    """A named part of a request or result."""

    data_type: Any = None

    def __init__(self, key: Any) -> None:
        self.key = text(key)

    @property
    def test_value(self) -> Any:
        """What a local run sends for the field."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"<{type(self).__name__}:{self.key}>"


class PayloadField(Field):
    """A part of the payload; its ``data_type`` is a number: 0 text, 1 audio, 2 image, 3 video."""

    encoding = "raw"
    format = "plain"
    compress = "raw"
    status: int = DataOnce


class StringBodyField(PayloadField):
    """Text in the payload."""

    data_type = STRING

    def __init__(
        self,
        key: Any,
        value: Any = b" ",
        need_base64: bool = False,
        encoding: str = "utf8",
        format: str = "plain",
        compress: str = "raw",
        status: int = DataOnce,
    ) -> None:
        super().__init__(key)
        self.value: bytes = value.encode() if isinstance(value, str) else bytes(value)
        self.need_base64 = need_base64
        self.encoding = encoding
        self.format = format
        self.compress = compress
        self.status = status

    @property
    def test_value(self) -> bytes:
        """The value, as bytes."""
        return base64.b64encode(self.value) if self.need_base64 else self.value


class JsonBodyField(PayloadField):
    """A JSON document in the payload."""

    data_type = STRING
    encoding = "utf8"
    format = "json"

    def __init__(self, key: Any, value: Any = "", need_base64: bool = False) -> None:
        super().__init__(key)
        self.value = value
        self.need_base64 = need_base64

    @property
    def test_value(self) -> bytes:
        """The value as JSON; text that is JSON already stays as it is."""
        raw = self._document()
        return base64.b64encode(raw) if self.need_base64 else raw

    def _document(self) -> bytes:
        if isinstance(self.value, bytes):
            return self.value
        if isinstance(self.value, str):
            try:
                json.loads(self.value)
            except ValueError:
                pass
            else:
                return self.value.encode()
        return json.dumps(self.value, ensure_ascii=False).encode()


class _FileField(PayloadField):
    missing = b""

    def __init__(self, key: Any, path: Any, need_base64: bool) -> None:
        super().__init__(key)
        self.path = path
        self.need_base64 = need_base64

    @property
    def test_value(self) -> bytes:
        """The file's content, or a stand-in where there is no such file."""
        path = Path(self.path)
        if not path.is_file():
            _log.warning("%s: there is no file %s", self.key, self.path)
            return self.missing
        content = path.read_bytes()
        return base64.b64encode(content) if self.need_base64 else content


class AudioBodyField(_FileField):
    """Sound in the payload."""

    data_type = AUDIO

    def __init__(
        self,
        key: Any,
        path: Any = "",
        encoding: str = "raw",
        format: str = "plain",
        compress: str = "raw",
        status: int = DataOnce,
    ) -> None:
        super().__init__(key, path, False)
        self.encoding = encoding
        self.format = format
        self.compress = compress
        self.status = status


class ImageBodyField(_FileField):
    """A picture in the payload."""

    data_type = IMAGE
    missing = b"<your image base64 here>"

    def __init__(
        self,
        key: Any,
        path: Any = "",
        need_base64: bool = False,
        encoding: str = "jpg",
        status: int = DataOnce,
    ) -> None:
        super().__init__(key, path, need_base64)
        self.encoding = encoding
        self.status = status


class VideoBodyField(_FileField):
    """A film in the payload."""

    data_type = VIDEO

    def __init__(
        self, key: Any, path: Any = "", encoding: str = "raw", status: int = DataOnce
    ) -> None:
        super().__init__(key, path, False)
        self.encoding = encoding
        self.status = status


class ParamField(Field):
    """A parameter; its ``data_type`` is the name of a JSON type."""

    required: bool
    value: Any

    def __init__(self, key: Any, value: Any, required: bool) -> None:
        super().__init__(key)
        self.value = value
        self.required = required

    @property
    def test_value(self) -> Any:
        """The value."""
        return self.value


class StringParamField(ParamField):
    """A parameter that is text."""

    data_type = "string"

    def __init__(
        self,
        key: Any,
        minLength: int = 0,
        maxLength: int = 1024,
        enums: Sequence[Any] = (),
        required: bool = False,
        value: Any = "",
        description: str = "",
        title: str = "",
    ) -> None:
        super().__init__(key, text(value) if isinstance(value, bytes) else value, required)
        self.min_length = minLength
        self.max_length = maxLength
        self.enums = list(enums)
        self.description = description
        self.title = title


class NumberParamField(ParamField):
    """A parameter that is a number."""

    data_type = "number"

    def __init__(
        self,
        key: Any,
        minimum: float = 0,
        maximum: float = 100,
        enums: Sequence[Any] = (),
        required: bool = False,
        value: Any = 0,
    ) -> None:
        super().__init__(key, value, required)
        self.minimum = minimum
        self.maximum = maximum
        self.enums = list(enums)


class IntegerParamField(NumberParamField):
    """A parameter that is a whole number."""

    data_type = "integer"


class BooleanParamField(ParamField):
    """A parameter that is true or false."""

    data_type = "boolean"

    def __init__(
        self, key: Any, title: str = "", default: bool = False, required: bool = False
    ) -> None:
        super().__init__(key, default, required)
        self.title = title
        self.default = default
