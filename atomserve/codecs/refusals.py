"""Foreign decoding errors, translated once: what a client reads when a request does not fit."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from atomserve.errors import AtomError, BadRequest, Fault, Invalid

FOREIGN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
"""What msgspec raises on bad input."""

LONGEST_MESSAGE = 300

_TRUNCATED = "Input data was truncated"

_PLACE = re.compile(r" - at `(?:key` in `)?(\$[^`]*)`")
_NAMED = re.compile(r"(?:missing required|contains unknown) field `(\w{1,64})`")


def refusal(error: Exception, *, at: str = "$", form: str = "JSON", text: Any = None) -> AtomError:
    """Say what is wrong with the request below the path ``at``; ``text`` is the JSON itself."""
    if isinstance(error, msgspec.ValidationError):
        return misfit(str(error), at=at)
    if isinstance(error, RecursionError):
        return BadRequest(f"the {form} is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return BadRequest(f"the {form} holds text that is not UTF-8: {error.reason}")
    if isinstance(error, OverflowError):
        return BadRequest(f"the {form} holds a number that is too large")
    message = str(error)
    if message == _TRUNCATED and text is not None and _is_whole(bytes(text)):
        message = "half of a surrogate pair stands alone in its text"
    return BadRequest(f"malformed {form}: {_short(message)}")


def _is_whole(text: bytes) -> bool:
    """Tell whether a text ends where JSON may; msgspec calls some whole ones truncated."""
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def misfit(text: str, *, at: str = "$") -> AtomError:
    """Name the place that msgspec's message tells; a number too large to read is a 400."""
    message = _short(_PLACE.split(text, maxsplit=1)[0])
    # A hook's own message ends in the inner path, msgspec appends the outer one.
    path = at + "".join(place[1:] for place in reversed(_PLACE.findall(text)))
    if named := _NAMED.search(message):
        path = f"{path}.{named[1]}"
    kind: type[AtomError] = (
        BadRequest
        if message.endswith(("Integer value out of range", "Number out of range"))
        else Invalid
    )
    return at_path(kind, path, message)


def at_path(kind: type[AtomError], path: str, message: Any) -> AtomError:
    """Make an error of ``kind`` about one place."""
    text = _short(str(message))
    return kind(f"{path}: {text}", errors=[Fault(path, text)])


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."
