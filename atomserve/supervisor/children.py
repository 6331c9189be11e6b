"""Child processes: started with a control channel, watched, killed with all they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress

import anyio
import structlog

from atomserve import control

log = structlog.get_logger("atomserve.supervisor")


class Child:
    """One running child; ``ended`` and ``silent`` tell of its death and of its closed channel."""

    def __init__(
        self, process: subprocess.Popen[bytes], channel: control.Channel[control.Report]
    ) -> None:
        self._process = process
        self.channel = channel
        self.ended = anyio.Event()
        self.silent = anyio.Event()
        self.serving = False
        self.ready = False

    @classmethod
    def start(cls, command: Sequence[str], fds: Collection[int]) -> Child:
        """Run ``command`` with one end of a new channel as its last argument, and with ``fds``."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *fds),
                # Of its own: a terminal's Ctrl-C is for the supervisor alone.
                start_new_session=True,
            )
        return cls(process, control.Channel(ours, control.Report))

    @property
    def pid(self) -> int:
        return self._process.pid

    def __repr__(self) -> str:
        return f"<Child {self.pid}: {self.fate}>"

    @property
    def fate(self) -> str:
        """How it ended."""
        code = self._process.returncode
        if code is None:
            return "running"
        if code >= 0:
            return f"exit code {code}"
        return f"signal {-code} ({signal.strsignal(-code)})"

    def poll(self) -> None:
        """Notice its death, and end what it has left behind; call this at each SIGCHLD."""
        if not self.ended.is_set() and self._is_over():
            # While it is not reaped, the number of its group belongs to nobody else.
            self._kill_group()
            self._process.wait()
            self.ended.set()

    def kill(self) -> None:
        """Kill it with everything in its process group, unless it has ended."""
        self.poll()
        if not self.ended.is_set():
            self._kill_group()

    def _is_over(self) -> bool:
        if hasattr(os, "waitid"):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, flags) is not None
        return self._process.poll() is not None

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # the latter is macOS's for a zombie
            os.killpg(self.pid, signal.SIGKILL)

    async def deliver(self) -> None:
        """Send what is posted on its channel, for as long as it listens."""
        with suppress(control.BrokenChannel):  # its death is noticed elsewhere
            await self.channel.deliver()

    async def reports(self) -> AsyncIterator[control.Report]:
        """Yield what it says; one that speaks nonsense is killed."""
        try:
            async for message in self.channel:
                yield message
        except control.BrokenChannel as exc:
            log.error("server.nonsense", pid=self.pid, error=str(exc))
            self.kill()
        finally:
            self.silent.set()


def reap_orphans(*, spare: Collection[Child]) -> None:
    """Collect ended processes that nobody else will, as the first process of a system has to.

    The exit codes of the children in ``spare`` stay theirs.
    """
    own = {child.pid: child for child in spare}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        if (child := own.get(found.si_pid)) is not None:
            child.poll()
        else:
            os.waitpid(found.si_pid, 0)
