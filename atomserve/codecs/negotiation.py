"""Which form a request has and which its answer gets, from the headers and the signature alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, TypeVar

from atomserve.engine.jobs import AnswerForm, Form
from atomserve.errors import BadRequest, NotAcceptable, UnsupportedMedia
from atomserve.signature import Signature
from atomserve.specs import Kind

StreamForm = Literal["sse", "ndjson"]

JSON = "application/json"
MSGPACK = "application/msgpack"
NPY = "application/x-npy"
OCTETS = "application/octet-stream"
MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"

MSGPACK_NAMES = (MSGPACK, "application/x-msgpack", "application/vnd.msgpack")
FAMILIES: dict[Kind, str] = {"image": "image/", "audio": "audio/", "video": "video/"}
MEDIA: dict[Kind, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg", "image/webp"),
    "audio": ("audio/wav", "audio/flac", "audio/ogg"),
    "video": ("video/mp4",),
    "blob": (OCTETS,),
}
STREAM_FORMS: dict[str, StreamForm] = {
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
}

LONGEST_CACHED = 256

Choice = TypeVar("Choice")


def request_form(signature: Signature, content_type: str, *, empty: bool = False) -> Form:
    """Tell how a request is written; ``empty``: it has no body.

    Raises:
        UnsupportedMedia: this model takes no such request.
        BadRequest: a form without a boundary.
    """
    if content_type == JSON:
        return "json"
    binary = signature.binary_input
    return _request_form(binary.kind if binary is not None else None, content_type, empty)


def _read_form(kind: Kind | None, content_type: str, empty: bool) -> Form:
    media, _, rest = content_type.partition(";")
    media = media.strip().lower()
    if media == JSON or (media.startswith("application/") and media.endswith("+json")):
        _check_charset(rest)
        return "json"
    if media in MSGPACK_NAMES:
        return "msgpack"
    if media == MULTIPART:
        if "boundary=" not in rest.lower():
            raise BadRequest("the Content-Type of the form names no boundary")
        return "multipart"
    if media == NPY and kind == "tensor":
        return "npy"
    if not media and empty:
        return "raw"
    if kind is not None and _is_raw(kind, media):
        return "raw"
    raise UnsupportedMedia(
        f"{media[:80] or 'a body without Content-Type'}; this model takes {_taken(kind)}"
    )


def _is_raw(kind: Kind, media: str) -> bool:
    # What `curl --data-binary` sends, and what sends nothing, mean the bytes as they are.
    if media in ("", OCTETS, URLENCODED):
        return True
    return kind in FAMILIES and media.startswith(FAMILIES[kind])


def _check_charset(parameters: str) -> None:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
            if charset not in ("utf-8", "utf8"):
                raise UnsupportedMedia(f"JSON in charset {charset[:40]!r}; expected utf-8")


def _taken(kind: Kind | None) -> str:
    taken = [JSON, MSGPACK, MULTIPART]
    if kind == "tensor":
        taken.append(NPY)
    if kind in FAMILIES:
        taken.append(f"{FAMILIES[kind]}*")
    if kind is not None:
        taken.append(OCTETS)
    return ", ".join(taken)


def answer_form(signature: Signature, accept: str) -> tuple[AnswerForm, str]:
    """Choose how the answer is written, and as which media type if the client named one.

    Items of a stream are JSON whatever ``accept`` says: `stream_form` reads it.

    Raises:
        NotAcceptable: ``accept`` allows nothing that there is.
    """
    if signature.streams or (accept == JSON):
        return "json", ""
    return _answer_form(signature.output.kind, accept)


def _choose_answer(kind: Kind, accept: str) -> tuple[AnswerForm, str]:
    offers = [*MEDIA.get(kind, ()), *([NPY] if kind == "tensor" else []), JSON, *MSGPACK_NAMES]
    chosen, named = best(offers, accept)
    if chosen in MEDIA.get(kind, ()):
        # A range leaves the choice to the answer: a null one may become JSON.
        return "media", chosen if named else ""
    if chosen == NPY:
        return "npy", NPY if named else ""
    return ("json" if chosen == JSON else "msgpack"), ""


@lru_cache(maxsize=1)
def _stream_offers() -> list[str]:
    return list(STREAM_FORMS)


def _choose_stream(accept: str) -> StreamForm:
    try:
        return STREAM_FORMS[best(_stream_offers(), accept)[0]]
    except NotAcceptable as exc:
        advice = "ask with Accept: application/x-ndjson, or text/event-stream"
        raise NotAcceptable(f"this model answers in a stream: {advice}") from exc


def stream_form(accept: str) -> StreamForm:
    """Choose how a stream is written.

    Raises:
        NotAcceptable: ``accept`` allows neither server-sent events nor NDJSON.
    """
    return _stream_form(accept)


def best(offers: list[str], accept: str) -> tuple[str, bool]:
    """Return the offer that ``accept`` likes best, the first of equals, and if it was named.

    Raises:
        NotAcceptable: it allows none of them.
    """
    ranges = _ranges(accept) or {"*/*": 1.0}
    rated = []
    for place, offer in enumerate(offers):
        family = f"{offer.partition('/')[0]}/*"
        fit = next((each for each in (offer, family, "*/*") if each in ranges), None)
        if fit is not None and ranges[fit] > 0:
            rated.append((-ranges[fit], place, offer, fit == offer))
    if not rated:
        raise NotAcceptable(f"nothing that Accept allows; there is {', '.join(offers)}")
    _, _, offer, named = min(rated)
    return offer, named


def _ranges(accept: str) -> dict[str, float]:
    ranges = {}
    for each in accept.split(","):
        media, *parameters = each.split(";")
        if not media.strip():
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                quality = _quality(value.strip())
        ranges[media.strip().lower()] = quality
    return ranges


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        quality = 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _cached(function: Callable[..., Choice]) -> Callable[..., Choice]:
    """Remember a function's answers by its header, its last argument but flags."""
    remembered = lru_cache(maxsize=256)(function)

    def call(*args: object) -> Choice:
        # Long headers would make a cache of kilobytes that strangers fill.
        short = all(not isinstance(arg, str) or len(arg) <= LONGEST_CACHED for arg in args)
        return remembered(*args) if short else function(*args)

    return call


_request_form = _cached(_read_form)
_answer_form = _cached(_choose_answer)
_stream_form = _cached(_choose_stream)
