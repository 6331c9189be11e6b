"""Who may administer: whoever reaches the listener, unless it is a web page that does."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from atomserve.errors import Forbidden, Misdirected, NotFound

OWN = ("localhost", "127.0.0.1", "::1")
"""Names that stand for this machine, wherever the request comes from."""
_NAVIGATED = frozenset({b"none", b"same-origin"})


class Access:
    """Lets requests through to ``app`` that name one of ``hosts``, or this machine.

    A page in a browser on this machine can reach its loopback addresses, also under a name of its
    own that resolves to one; no page can reach a unix socket.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in (*OWN, *hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope; raises what refuses it."""
        if scope["type"] != "http":
            raise NotFound("administrators are served over HTTP alone")
        fields = dict(scope["headers"])
        if b"origin" in fields or fields.get(b"sec-fetch-site", b"none") not in _NAVIGATED:
            raise Forbidden("pages in a browser may not administer")
        if scope.get("server") is not None:  # it is None on a unix socket
            self._check_host(fields.get(b"host", b"").decode("latin-1"))
        await self._app(scope, receive, send)

    def _check_host(self, field: str) -> None:
        name = host_of(field)
        if name not in self._hosts:
            raise Misdirected(f"{name!r} is none of this administration's hosts: see admin_hosts")


def host_of(field: str) -> str:
    """Return the name in a Host field, without its port."""
    field = field.strip().lower()
    if field.startswith("["):
        return field[1:].partition("]")[0]
    return field.partition(":")[0]
