"""The listening sockets of an instance: bound once, one per address and API process."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

from atomserve.control import BACKLOG
from atomserve.errors import ConfigError

SOCKET_MODE = 0o660
"""Who may connect to a unix socket: its user and group."""
ADMIN_MODE = 0o600
"""Who may connect to the administration's: its user."""

_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class AddressBusy(Exception):
    """Another process listens there."""


class Listeners:
    """Holds the sockets open, so that connections wait while an API process is replaced."""

    def __init__(
        self, groups: list[list[socket.socket]], places: list[str], path: str = ""
    ) -> None:
        self.groups = groups
        """The sockets of each API process."""
        self.places = places
        """Where a client finds them: ``host:port`` or ``unix:path``."""
        self._path = path

    def __repr__(self) -> str:
        return f"<Listeners {', '.join(self.places)}: {len(self.groups)} processes>"

    def close(self) -> None:
        for group in self.groups:
            for sock in group:
                sock.close()
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = ""  # a second close must not take the path from whoever binds it next


def listen(host: str, port: int, *, processes: int) -> Listeners:
    """Bind every address of ``host`` once per process; port 0 takes one free port for them all.

    Raises ``AddressBusy`` when someone else listens there, ``ConfigError`` when the address
    cannot be used at all.
    """
    if not host:
        raise ConfigError("host: is empty; 0.0.0.0 or :: listens on every address")
    groups: list[list[socket.socket]] = [[] for _ in range(processes)]
    places = []
    try:
        for family, address in _addresses(host, port):
            bound = _bind(family, (address, port), processes)
            if bound:
                port = bound[0].getsockname()[1]
                places.append(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
                for group, sock in zip(groups, bound, strict=True):
                    group.append(sock)
    except BaseException:
        Listeners(groups, places).close()
        raise
    if not places:
        raise ConfigError(f"host: {host!r} is no address of this machine")
    return Listeners(groups, places)


def listen_unix(path: str, *, processes: int, mode: int = SOCKET_MODE) -> Listeners:
    """Bind a unix socket that all processes share; one that nobody listens on is replaced."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, mode)  # nobody can connect before it listens
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise AddressBusy(f"unix:{path} is in use") from exc
        raise ConfigError(f"uds: cannot listen on {path}: {exc.strerror or exc}") from exc
    return Listeners([[sock] for _ in range(processes)], [f"unix:{path}"], path)


def listen_for_admin(address: str) -> Listeners:
    """Bind ``unix:PATH``, which only this user may use, or ``HOST:PORT``, for one API process.

    Raises as `listen` does.
    """
    kind, _, path = address.partition("unix:")
    try:
        if not kind:
            return listen_unix(path, processes=1, mode=ADMIN_MODE)
        host, _, port = address.rpartition(":")
        return listen(host.strip("[]"), int(port), processes=1)
    except OverflowError as exc:
        raise ConfigError(f"admin: {address}: {exc}") from exc
    except ConfigError as exc:
        raise ConfigError(f"admin: {exc}") from exc


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise ConfigError(f"host: {host!r} cannot be resolved: {exc}") from exc
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _bind(family: int, address: tuple[str, int], count: int) -> list[socket.socket]:
    """Bind ``count`` sockets to ``address``; none when this machine does not have it."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            _bind_one(sock, address, first=len(sockets) == 1, shared=count > 1)
            address = sock.getsockname()[:2]
    except OSError as exc:
        for sock in sockets:
            sock.close()
        if exc.errno in _ABSENT:
            return []
        if exc.errno == errno.EADDRINUSE:
            raise AddressBusy(f"{address[0]}:{address[1]} is in use") from exc
        reason = f"cannot listen on {address[0]}:{address[1]}: {exc.strerror or exc}"
        raise ConfigError(f"port: {reason}") from exc
    return sockets


def _bind_one(sock: socket.socket, address: tuple[str, int], *, first: bool, shared: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The first socket binds without SO_REUSEPORT: with it, a second instance on the same port
    # would silently take half of the connections. It joins the group before it listens.
    if shared and not first:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    if shared and first:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.listen(BACKLOG)


def _remove_stale(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a file"
        raise ConfigError(f"uds: {path} is {what}, not a unix socket; name a path that is free")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return
        else:
            raise AddressBusy(f"unix:{path} is in use")
