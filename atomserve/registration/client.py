"""HTTP to a control plane: direct, bounded in bytes, a connection of its own for each call."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import msgspec

from atomserve.errors import ConfigError
from atomserve.registration.aside import aside
from atomserve.registration.registrar import CallFailed
from atomserve.settings import RegistrationSettings

LARGEST = 1024 * 1024
"""Most bytes of an answer."""
LARGEST_TOKEN = 64 * 1024

# Their records have no place in a service's log at each heartbeat, nor headers in any.
for name in ("httpx2", "httpcore2"):
    logging.getLogger(name).setLevel(logging.WARNING)


class Answer(msgspec.Struct, frozen=True):
    """What the control plane said."""

    status: int
    body: bytes

    def words(self) -> str:
        """Return the beginning of what it said, for an operator."""
        return self.body[:120].decode("utf-8", "replace")


class ControlPlane:
    """Where a control plane is, and how this instance proves to it who it is.

    Raises:
        ConfigError: the certificates that the settings name cannot be used.
    """

    def __init__(self, url: str, settings: RegistrationSettings) -> None:
        self._url = httpx2.URL(url.rstrip("/"))
        self._token_file = settings.token_file
        self._turn = 0
        self._client = httpx2.AsyncClient(
            verify=_context(settings) if self._url.scheme == "https" else False,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # whoever calls bounds the whole
            # One connection for one call: one kept open may be closed by the other end at the
            # moment of the next heartbeat, which would look like a failure of it.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def __repr__(self) -> str:
        return f"<ControlPlane {self._url}>"

    async def call(
        self, method: str, path: str, body: Any = None, *, params: dict[str, str] | None = None
    ) -> Answer:
        """Return what is answered; how long that may take is the caller's affair.

        Raises:
            CallFailed: there is no answer, or more of it than anybody needs.
        """
        headers = {
            "Host": self._url.netloc.decode(),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **await self._authorization(),
        }
        content = msgspec.json.encode(body) if body is not None else b""
        url = self._url.copy_with(path=self._url.path.rstrip("/") + path, params=params or {})
        addresses = await self._addresses()
        for number, address in enumerate(addresses, 1):
            # The name was looked up here, and is what the certificate must say all the same.
            there = url.copy_with(host=address)
            try:
                return await self._exchange(method, there, headers, content)
            except httpx2.ConnectError as exc:
                if number == len(addresses):
                    raise CallFailed(_why(exc)) from exc
            except httpx2.InvalidURL as exc:
                raise CallFailed("its URL is none") from exc
            except (httpx2.HTTPError, OSError) as exc:  # an alert within TLS comes as it is
                raise CallFailed(_why(exc)) from exc
        raise CallFailed("its name has no address")

    async def aclose(self) -> None:
        """Let go of what a call may have left."""
        await self._client.aclose()

    async def _exchange(
        self, method: str, url: httpx2.URL, headers: dict[str, str], content: bytes
    ) -> Answer:
        async with self._client.stream(
            method,
            url,
            headers={**headers, "Connection": "close"},
            content=content,
            extensions={"sni_hostname": self._url.host},
        ) as response:
            found = bytearray()
            async for chunk in response.aiter_raw():
                found += chunk
                if len(found) > LARGEST:
                    raise CallFailed(f"its answer is larger than {LARGEST} bytes")
            return Answer(response.status_code, bytes(found))

    async def _addresses(self) -> list[str]:
        """Look the control plane up; one that a call has got stuck at comes last the next time."""
        host, port = self._url.host, self._url.port
        try:
            rows = await aside(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise CallFailed("its name cannot be looked up") from exc
        found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        self._turn += 1
        first = self._turn % len(found) if found else 0
        return found[first:] + found[:first]

    async def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = await aside(_read_token, self._token_file)
        except (OSError, UnicodeError) as exc:
            raise CallFailed("the token file cannot be read") from exc
        if not token or not token.isascii() or not token.isprintable():
            raise CallFailed("the token file holds no token")
        return {"Authorization": token if " " in token else f"Bearer {token}"}


def _read_token(path: str) -> str:
    # What is no regular file may never say anything.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("no regular file")
        return file.read(LARGEST_TOKEN).decode("ascii").strip()


def _context(settings: RegistrationSettings) -> ssl.SSLContext:
    for setting in ("ca_file", "certfile", "keyfile"):
        path = getattr(settings, setting)
        try:
            if path is not None:
                Path(path).open("rb").close()
        except OSError as exc:
            raise ConfigError(f"registration.{setting}: cannot use {path}: {exc.strerror}") from exc
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except ssl.SSLError as exc:
        path = settings.ca_file
        raise ConfigError(f"registration.ca_file: cannot use {path}: not valid PEM") from exc
    if settings.certfile is not None:
        try:
            context.load_cert_chain(settings.certfile, settings.keyfile, password=_no_password)
        except ssl.SSLError as exc:
            files = f"{settings.certfile} with keyfile {settings.keyfile}"
            raise ConfigError(f"registration.certfile: cannot use {files}: {exc.reason}") from exc
    return context


def _no_password() -> NoReturn:
    raise ConfigError("registration.keyfile: is encrypted, and nobody can give its password")


def _why(error: BaseException) -> str:
    """Return what is wrong between us and the control plane, in words for anybody."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or 'the connection ended'}"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ConnectError):
        return "it cannot be reached"
    if isinstance(error, httpx2.ProtocolError):
        return "what it answers is no HTTP"
    return f"the connection failed ({type(error).__name__})"
