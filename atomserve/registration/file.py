"""The registrar that keeps a JSON file, for static discovery and for tests."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from atomserve.errors import ConfigError
from atomserve.registration.aside import aside
from atomserve.registration.options import options_of
from atomserve.registration.registrar import Announced, CallFailed, Forgotten, Load
from atomserve.settings import RegistrationSettings

MISSED = 5
"""Heartbeats that may be lost before the file is anybody's."""


class FileOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the file is."""

    path: str
    """Of the file, or of a folder for one called after the instance."""


class Entry(msgspec.Struct, frozen=True):
    """What the file holds; times are seconds since 1970."""

    instance: str
    url: str
    boot: str
    epoch: int
    pid: int
    seen: float
    """When it was written."""
    expires: float
    """When whoever wrote it has to be taken for dead."""
    load: Load = Load()


class FileRegistrar:
    """Registers as `atomserve.registration.registrar.Registrar` says.

    Of two instances that want the same file the one of the higher epoch has it, as long as it
    lives; nobody removes what another has written.
    """

    carries_load = True

    def __init__(self, settings: RegistrationSettings) -> None:
        self._path = Path(options_of(settings, FileOptions).path).absolute()
        self._lasts = MISSED * settings.heartbeat
        folder = self._path if self._path.is_dir() else self._path.parent
        if not folder.is_dir():
            raise ConfigError(f"registration.options.path: there is no folder {folder}")

    def __repr__(self) -> str:
        return f"<FileRegistrar {self._path}>"

    async def register(self, announced: Announced) -> None:
        """Write the file, unless it is another's of a higher epoch."""
        await aside(self._register, announced)

    async def heartbeat(self, announced: Announced, load: Load) -> None:
        """Write it again, if it is still this instance's."""
        await aside(self._beat, announced, load)

    async def withdraw(self, announced: Announced) -> None:
        """Remove it, if it is this instance's."""
        await aside(self._withdraw, announced)

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""

    def _register(self, announced: Announced) -> None:
        other = self._read(announced)
        if (
            other is not None
            and other.boot != announced.boot
            and other.epoch > announced.epoch
            and time.time() < other.expires
        ):
            raise CallFailed("a younger instance of the same name is registered")
        self._write(announced, Load())

    def _beat(self, announced: Announced, load: Load) -> None:
        found = self._read(announced)
        if found is None or found.boot != announced.boot:
            raise Forgotten("its file is gone, or another's")
        self._write(announced, load)

    def _withdraw(self, announced: Announced) -> None:
        found = self._read(announced)
        if found is not None and found.boot == announced.boot:
            self._place(announced).unlink(missing_ok=True)

    def _place(self, announced: Announced) -> Path:
        if not self._path.is_dir():
            return self._path
        return self._path / (announced.instance.replace("/", "_") + ".json")

    def _read(self, announced: Announced) -> Entry | None:
        try:
            return msgspec.json.decode(self._place(announced).read_bytes(), type=Entry)
        except (FileNotFoundError, msgspec.DecodeError):  # whatever it was, it is no instance
            return None
        except OSError as exc:
            raise CallFailed(f"the file cannot be read: {exc.strerror}") from exc

    def _write(self, announced: Announced, load: Load) -> None:
        now = time.time()
        entry = Entry(
            **msgspec.structs.asdict(announced),
            pid=os.getpid(),
            seen=round(now, 3),
            expires=round(now + self._lasts, 3),
            load=load,
        )
        place = self._place(announced)
        beside = place.with_name(f".{place.name}.{announced.boot}")
        try:
            beside.write_bytes(msgspec.json.encode(entry) + b"\n")
            os.replace(beside, place)
        except OSError as exc:
            raise CallFailed(f"the file cannot be written: {exc.strerror}") from exc
