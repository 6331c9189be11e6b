"""A request on its way to become a job of a model's, the same for every surface."""

from __future__ import annotations

import re

from starlette.types import Scope

from atomserve.codecs.negotiation import answer_form, request_form
from atomserve.context import Context, RawHeaders
from atomserve.engine.calls import Call, Session, Stream
from atomserve.engine.jobs import USUAL_URGENCY, Payload
from atomserve.engine.models import Model
from atomserve.errors import BadRequest, UnsupportedMedia
from atomserve.guard.client import Client, client_of
from atomserve.signature import Signature
from atomserve.surfaces.priorities import urgency

RawFields = list[tuple[bytes, bytes]]

SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?").fullmatch
LONGEST_TENANT = 128
TENANT = re.compile(rf"[ -~]{{0,{LONGEST_TENANT}}}").fullmatch
READ = frozenset(
    (
        b"content-type",
        b"accept",
        b"content-length",
        b"request-timeout",
        b"content-encoding",
        b"priority",
    )
)


class Entry:
    """Where the requests of one route enter ``model``.

    ``tenant_header`` is the header that says which tenant asks; empty: none does.
    """

    def __init__(self, model: Model, route: str, *, tenant_header: str = "") -> None:
        self.model = model
        self.route = route
        self._tenant_header = tenant_header.lower().encode()

    def client(self, scope: Scope) -> Client:
        """Return who asks, and for which tenant; the access record is told what for.

        Raises:
            BadRequest: the tenant has a name that is none.
        """
        client = client_of(scope)
        client.model, client.route = self.model.name, self.route
        if self._tenant_header:
            client.tenant = self._tenant(scope["headers"])
        return client

    def _tenant(self, raw: RawFields) -> str:
        for name, value in raw:
            if name.lower() == self._tenant_header:
                text = value.decode("latin-1")
                if not TENANT(text):
                    raise BadRequest(
                        "the header that names the tenant: expected at most "
                        f"{LONGEST_TENANT} printable ASCII characters"
                    )
                return text
        return ""

    # Each takes over the payload's body, which nobody gives back who fails before: read it last.

    def call(self, payload: Payload, head: Head, client: Client) -> Call:
        """Begin a unary job, which ends when its client leaves; raises as `Model.call` does."""
        context = self._context(head.raw, client)
        call = self.model.call(payload, context, wait=head.wait, urgency=head.urgency)
        client.on_gone(call.abandon)
        return call

    def stream(self, payload: Payload, head: Head, client: Client) -> Stream:
        """Begin a job with many answers; otherwise as `call`."""
        context = self._context(head.raw, client)
        stream = self.model.stream(payload, context, wait=head.wait, urgency=head.urgency)
        client.on_gone(stream.abandon)
        return stream

    def session(self, payload: Payload, raw: RawFields, client: Client) -> Session:
        """Begin a session of a handshake's ``raw`` header fields; otherwise as `call`."""
        said = ", ".join(value.decode("latin-1") for name, value in raw if name == b"priority")
        session = self.model.session(payload, self._context(raw, client), urgency=urgency(said))
        client.on_gone(session.abandon)
        return session

    def _context(self, raw: RawFields, client: Client) -> Context:
        return Context(
            model=self.model.name,
            request_id=client.request_id,
            headers=RawHeaders(raw),
            tenant=client.tenant,
        )


class Head:
    """What a request's headers say of its body and of the answer wanted.

    Raises:
        BadRequest: a header cannot be read.
        UnsupportedMedia: the body is compressed.
    """

    __slots__ = ("accept", "content_type", "length", "priority", "raw", "wait")

    def __init__(self, raw: RawFields) -> None:
        self.raw = raw
        self.content_type = self.accept = self.priority = ""
        self.length: int | None = None
        self.wait: float | None = None
        """Seconds that the client will wait."""
        for name, value in raw:
            if name not in READ:
                continue
            text = value.decode("latin-1")
            if name == b"content-type":
                self.content_type = text
            elif name == b"accept":
                self.accept = f"{self.accept},{text}" if self.accept else text
            elif name == b"content-length":
                self.length = int(value)
            elif name == b"request-timeout":
                self.wait = _seconds(text)
            elif name == b"priority":
                self.priority = f"{self.priority}, {text}" if self.priority else text
            elif text.lower() != "identity":
                raise UnsupportedMedia(f"Content-Encoding {text!r} is not taken: send it plain")

    @property
    def urgency(self) -> int:
        """How urgent the client says that it is."""
        return urgency(self.priority) if self.priority else USUAL_URGENCY

    def payload(self, signature: Signature, query: bytes) -> Payload:
        """Begin the payload of a request whose body is still to be read."""
        form = request_form(signature, self.content_type, empty=self.length == 0)
        answer, answer_type = answer_form(signature, self.accept)
        return Payload(
            form=form,
            media_type=self.content_type,
            query=query.decode("latin-1"),
            answer=answer,
            answer_type=answer_type,
        )


def _seconds(text: str) -> float:
    if not SECONDS(text):
        raise BadRequest("Request-Timeout: expected seconds, for instance 2.5")
    return float(text)
