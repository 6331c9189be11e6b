"""The door to everything that a request may name: URLs, files, parts of files."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog

from atomserve.errors import SourceFailed, SourceRefused, SourceTimeout
from atomserve.media.deadlines import until_of
from atomserve.media.encoded import from_base64
from atomserve.media.files import Folders
from atomserve.media.urls import read_url
from atomserve.settings import MediaSettings

if TYPE_CHECKING:
    from atomserve.media.fetching import Fetcher

log = structlog.get_logger("atomserve.media")

FORMS = ("base64", "url", "path", "mmap")
CHANNELS = 3
SHOWN = 200
"""Characters of a path that are logged."""

Lookup = Callable[..., list[tuple[Any, ...]]]
"""Called like `socket.getaddrinfo`."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a file; with ``height`` and ``width`` it is raw pixels, blue, green, red."""

    path: str
    position: int
    size: int
    height: int | None = None
    width: int | None = None


class Opened(NamedTuple):
    """What a reference led to; ``shape`` is there for raw pixels, which ``data`` are then."""

    data: memoryview
    shape: tuple[int, int] | None = None


def named(reference: Mapping[str, Any]) -> str:
    """Return which of `FORMS` a reference has.

    Raises:
        ValueError: it is not an object of one of them.
    """
    if len(reference) == 1:
        (form,) = reference
        if form in FORMS:
            return str(form)
    forms = ", ".join(FORMS)
    raise ValueError(f"expected a base64 string, or an object of one member: {forms}")


class Sources:
    """Opens what requests name, as far as ``settings`` allow it; any thread may ask."""

    def __init__(
        self, settings: MediaSettings | None = None, *, lookup: Lookup = socket.getaddrinfo
    ) -> None:
        self.settings = MediaSettings() if settings is None else settings
        self._lookup = lookup
        self._folders = Folders(self.settings.roots)

    @cached_property
    def _fetcher(self) -> Fetcher:
        from atomserve.media.fetching import Fetcher

        return Fetcher(self.settings, self._lookup)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The forms that may be used beside base64."""
        settings = self.settings
        switches = {"url": settings.urls, "path": settings.roots, "mmap": settings.mmap}
        return tuple(form for form, switch in switches.items() if switch)

    def until(self) -> float:
        """Return until when what is opened from now on may take its time."""
        return until_of(self.settings.timeout)

    def open(self, reference: Mapping[str, Any], until: float) -> Opened:
        """Return what ``reference``, ``{"url": ...}`` and the like, leads to.

        Raises:
            SourceRefused: it may not be opened.
            SourceFailed: it cannot be fetched.
            SourceTimeout: it did not arrive in time.
            TooLarge: it is over the limits.
            ValueError: it is none.
        """
        form = named(reference)
        if form != "base64" and form not in self.allowed:
            forms = " or ".join(("base64", *self.allowed))
            raise SourceRefused(f"this server opens no {form} of a request; expected {forms}")
        try:
            found: Any = msgspec.convert(reference[form], Part if form == "mmap" else str)
        except msgspec.ValidationError as exc:
            raise ValueError(f"{form}: {exc}") from None
        try:
            return self._part(found) if isinstance(found, Part) else self._whole(form, found, until)
        except (SourceRefused, SourceFailed, SourceTimeout) as exc:
            # The client is told nothing of this.
            log.info("media.not_opened", form=form, place=_shown(form, found), cause=_cause(exc))
            raise

    def _whole(self, form: str, place: str, until: float) -> Opened:
        if form == "base64":
            return Opened(memoryview(from_base64(place)))
        if form == "url":
            return Opened(self._fetcher.fetch(place, until))
        return Opened(self._folders.read(place, self.settings.max_bytes))

    def bytes_of(self, reference: Mapping[str, Any]) -> memoryview:
        """Return the bytes that ``reference`` leads to, read-only; raises as `open` does."""
        return self.open(reference, self.until()).data

    def _part(self, part: Part) -> Opened:
        if part.position < 0 or part.size < 1:
            raise ValueError("expected a position of at least 0 and a size of at least 1")
        if part.height is None and part.width is None:
            most = self.settings.max_bytes
            return Opened(self._folders.read_part(part.path, part.position, part.size, most))
        height, width = part.height or 0, part.width or 0
        if height < 1 or width < 1 or part.size != height * width * CHANNELS:
            raise ValueError(f"expected a size of height * width * {CHANNELS} bytes")
        most = self.settings.max_pixels * CHANNELS
        data = self._folders.read_part(part.path, part.position, part.size, most)
        return Opened(data, (height, width))


def _shown(form: str, found: Any) -> str:
    """Return what is logged of a place: of a URL its host, since the rest may hold secrets."""
    if form != "url":
        return str(found.path if isinstance(found, Part) else found)[:SHOWN]
    try:
        return read_url(found).authority
    except ValueError:
        return ""


def _cause(error: Exception) -> str:
    cause = error.__cause__
    return type(error).__name__ if cause is None else f"{type(cause).__name__}: {cause}"[:SHOWN]
