"""The client of a running server, for the commands that ask one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2


@contextmanager
def connected(
    url: str, *, timeout: float, connect: float = 10.0, insecure: bool = False, http2: bool = False
) -> Iterator[httpx2.Client]:
    """Talk to the server at ``url``, which may be ``unix:PATH``, inside of the block.

    Raises:
        CallFailed: nothing answers there, or something that is no server of ours.
    """
    import httpx2

    from atomserve.cli.answers import CallFailed

    local = url.startswith("unix:")
    transport = httpx2.HTTPTransport(uds=url.removeprefix("unix:")) if local else None
    base = "http://localhost" if local else url if "://" in url else f"http://{url}"
    try:
        with httpx2.Client(
            base_url=base,
            transport=transport,
            # Without TLS nothing is negotiated: HTTP/2 from the first byte, or not at all.
            http1=not http2 or url.startswith("https:"),
            http2=http2,
            verify=not insecure,
            timeout=httpx2.Timeout(timeout, connect=connect),
            trust_env=False,
        ) as client:
            yield client
    except httpx2.ConnectError as exc:
        told = tls_failure(exc)
        raise CallFailed(f"{url}: {told}" if told else f"nothing answers at {url}") from exc
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        raise CallFailed(f"{url}: {exc or type(exc).__name__}") from exc


def tls_failure(error: BaseException | None) -> str:
    """Return what went wrong with TLS, if that is why there is no connection."""
    import ssl

    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            advice = "--insecure skips the check"
            return f"its certificate is not trusted: {error.verify_message}; {advice}"
        if isinstance(error, ssl.SSLError):
            return f"no TLS there: {error.reason or error}"
        error = error.__cause__ or error.__context__
    return ""
