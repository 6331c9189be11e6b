"""Personal resources as a wrapper is given them, from a form or an Athena payload."""

from __future__ import annotations

from atomserve.codecs.athena.nodes import AUDIO, IMAGE, OTHER, TEXT, VIDEO, Node
from atomserve.codecs.athena.requests import TextIn, decode_request
from atomserve.codecs.forms import split_form
from atomserve.compat.aiges.binding import NO_PATCH
from atomserve.engine.jobs import Payload
from atomserve.errors import Invalid

TYPES = {"text": TEXT, "audio": AUDIO, "image": IMAGE, "video": VIDEO}


def personal(name: str) -> str:
    """Return the id by which requests will ask for the resource ``name``."""
    if name in NO_PATCH:
        raise Invalid(f"{name!r} is no name of a resource: it stands for none")
    return name


def resource_nodes(payload: Payload, *, text_in: TextIn) -> list[Node]:
    """Read a form, each part of which is a piece by its name, or an envelope's ``payload``.

    Raises:
        AtomError: it is at fault.
    """
    if payload.form == "json":
        nodes = decode_request(payload.body, text=text_in).nodes
    else:
        parts = split_form(payload.body, payload.media_type)
        nodes = [Node(part.name, part.data, _type(part.media_type)) for part in parts]
    if not nodes:
        raise Invalid("a resource without any data")
    return nodes


def _type(media_type: str) -> int:
    return TYPES.get(media_type.partition("/")[0].lower(), OTHER)
