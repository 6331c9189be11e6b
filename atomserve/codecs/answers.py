"""What a wrapper returns, written as the answer's form asks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec
import numpy as np

from atomserve.codecs.inputs import marked_spec
from atomserve.codecs.kinds import kinds_of, named
from atomserve.codecs.tensors import data_of, npy_head
from atomserve.codecs.wire import NO_JSON, array_of, write_bytes, write_json, write_msgpack
from atomserve.engine.jobs import Answer, AnswerForm
from atomserve.errors import BadAnswer, NotAcceptable
from atomserve.fields import VideoClip
from atomserve.schemas import Leaf, Marked, unwrapped
from atomserve.specs import Tensor

UNFIT = (AttributeError, TypeError, ValueError, OverflowError, RecursionError)
"""What an object that is not as annotated makes an encoder raise."""


MEDIA_TYPE = re.compile(r"[!-~]{1,64}/[ -~]{1,190}")


class Answers:
    """Writes the answers of one output type."""

    def __init__(self, output: Marked) -> None:
        self._spread = output.spread
        self._nullable = unwrapped(output.type) is not output.type
        spec, many = marked_spec(output.type)
        self._spec = None if many else spec
        self._kinds = kinds_of(output.type) if output.spread is None else None
        self._expected = named(output.type)
        self._to_json = msgspec.json.Encoder(enc_hook=plain).encode
        self._to_msgpack = msgspec.msgpack.Encoder(enc_hook=plain).encode
        self._forms: dict[AnswerForm, Callable[[Any, str], Answer]] = {
            "json": self._json,
            "msgpack": self._msgpack,
            "npy": self._media,
            "media": self._media,
        }

    def encode(self, value: Any, form: AnswerForm, media_type: str = "") -> Answer:
        """Write ``value``; ``media_type`` chooses among the types of a medium.

        Raises:
            BadAnswer: it is not what the signature says.
            NotAcceptable: it has no such form.
        """
        return self._forms[form](value, media_type)

    def _json(self, value: Any, _: str) -> Answer:
        if self._spread is not None:
            value = self._builtins(value, write_json)
        elif self._kinds is not None and not isinstance(value, self._kinds):
            raise self._misfit(value)
        try:
            body = self._to_json(value)
            # msgspec writes NaN and the infinities as null.
            if b"null" in body:
                _refuse_infinite(
                    msgspec.to_builtins(value, builtin_types=(bytes, memoryview), enc_hook=plain)
                )
        except UNFIT as exc:
            raise BadAnswer(f"the model's answer has no JSON form: {exc}") from exc
        return Answer(body)

    def _msgpack(self, value: Any, _: str) -> Answer:
        if self._spread is not None:
            value = self._builtins(value, write_msgpack)
        elif self._kinds is not None and not isinstance(value, self._kinds):
            raise self._misfit(value)
        try:
            return Answer(self._to_msgpack(value), "application/msgpack")
        except UNFIT as exc:
            raise BadAnswer(f"the model's answer has no msgpack form: {exc}") from exc

    def _media(self, value: Any, media_type: str) -> Answer:
        spec = self._spec
        if spec is None or (value is None and self._nullable and media_type):
            raise NotAcceptable("the answer is not a medium by itself: ask for application/json")
        if value is None and self._nullable:
            return self._json(value, "")
        if isinstance(value, VideoClip):
            own = _checked(value.media_type)
        else:
            own = media_type or spec.media_type
        if isinstance(spec, Tensor):
            array = array_of(spec, value)
            # Whoever keeps the answer copies the numbers once, to where they are read.
            return Answer(data_of(array), own, head=npy_head(array))
        return Answer(write_bytes(spec, value, media_type), own)

    def _misfit(self, value: Any) -> BadAnswer:
        return BadAnswer(f"the model answered {type(value).__name__}; expected {self._expected}")

    def _builtins(self, value: Any, leaf: Leaf) -> Any:
        assert self._spread is not None
        try:
            return self._spread(value, leaf)
        except UNFIT as exc:
            raise BadAnswer(
                f"the model's answer ({type(value).__name__}) is not as annotated: {exc}"
            ) from exc


def plain(value: Any) -> Any:
    """Turn numpy's own values, in a place that says nothing of them, into Python's.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written")


def _checked(media_type: Any) -> str:
    """Return a wrapper's own media type, which becomes a header."""
    if not isinstance(media_type, str) or not MEDIA_TYPE.fullmatch(media_type):
        raise BadAnswer("the model's answer has a media type that is none")
    return media_type


def _refuse_infinite(value: Any) -> None:
    if type(value) is float and not isfinite(value):
        raise NotAcceptable(NO_JSON)
    if type(value) is dict:
        value = value.values()
    elif type(value) is not list:
        return
    for each in value:
        _refuse_infinite(each)
