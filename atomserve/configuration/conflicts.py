"""What no single setting shows to be wrong, only several together or a look at its meaning."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from atomserve.settings import RegistrationSettings, Settings


def conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what no single value shows to be wrong: the setting's path, and what to do."""
    if settings.certfile and not settings.keyfile:
        yield "certfile", "a certificate needs its private key: set keyfile too"
    if settings.keyfile and not settings.certfile:
        yield "keyfile", "a private key needs its certificate: set certfile too"
    if settings.cors.credentials and "*" in settings.cors.origins:
        yield "cors.credentials", "not for origin *: list the origins that may send credentials"
    host = _admin_host(settings.admin)
    if host is not None and not settings.admin_hosts and not _is_own(host):
        yield "admin", f"other machines reach {host}: list the names to ask by in admin_hosts"
    yield from _no_networks("trusted_proxies", settings.trusted_proxies)
    yield from _no_networks("media.allow_networks", settings.media.allow_networks)
    for root in settings.media.roots:
        if root != os.path.normpath(root) or not root.startswith("/") or root in ("/", "//"):
            yield "media.roots", f"{root}: write a folder's absolute path, not the whole system's"
    if settings.media.mmap and not settings.media.roots:
        yield "media.mmap", "parts of files need folders to be in: set media.roots too"
    yield from registration_conflicts(settings.registration)


def _admin_host(address: str | None) -> str | None:
    """Return the host of ``address``, if it is not a unix socket's."""
    if address is None or address.startswith("unix:"):
        return None
    return address.rpartition(":")[0].strip("[]")


def _is_own(host: str) -> bool:
    """Say whether nobody but this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def registration_conflicts(registration: RegistrationSettings) -> Iterator[tuple[str, str]]:
    """Yield, as `conflicts` does, what is wrong with what is said of a registration."""
    if registration.registrar == "linker" and not registration.url:
        yield "registration.registrar", "linker needs the control plane's base URL: set url too"
    if registration.registrar == "file" and not registration.options.get("path"):
        yield "registration.registrar", "file needs the path of the file: set options.path too"
    for name in ("url", "advertise"):
        if (value := getattr(registration, name)) and (advice := _no_address(value)):
            yield f"registration.{name}", advice
    if registration.certfile and not registration.keyfile:
        yield "registration.certfile", "a certificate needs its private key: set keyfile too"
    if registration.keyfile and not registration.certfile:
        yield "registration.keyfile", "a private key needs its certificate: set certfile too"
    if registration.backoff_max < registration.backoff_min:
        named = "min" if registration.backoff_min != RegistrationSettings().backoff_min else "max"
        yield f"registration.backoff_{named}", "the longest wait is shorter than the first one"


def _no_address(url: str) -> str:
    """Say why nobody can be reached at ``url``; nothing if somebody may be."""
    try:
        parts = urlsplit(url)
        told = parts.scheme in ("http", "https") and parts.hostname and parts.port != -1
    except ValueError:
        told = None
    if not told or any(not c.isprintable() or c.isspace() for c in url):
        return "is no URL: write it as http://host:port or https://host:port"
    if parts.username is not None or parts.password is not None:
        return "may hold no password, which would be logged: use token_file"
    if parts.query or parts.fragment:
        return "may have no ? and no #"
    return ""


def _no_networks(path: str, networks: Iterable[str]) -> Iterator[tuple[str, str]]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as exc:
            yield path, f"{exc}: write an address or a network, such as 10.0.0.0/8"
