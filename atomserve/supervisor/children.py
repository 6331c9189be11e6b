"""Child processes: started with a control channel, watched, killed with all they started."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress

import anyio
import msgspec
import structlog

from atomserve import control

HASTE = 0.5
"""Seconds that a child gets to leave at once, before it is killed."""

Reprieve = Callable[[], Awaitable[bool]]

log = structlog.get_logger("atomserve.supervisor")


class Child:
    """One running child; ``ended`` tells of its death."""

    def __init__(
        self, process: subprocess.Popen[bytes], channel: control.Channel[control.Report]
    ) -> None:
        self._process = process
        self._channel = channel
        self._silent = anyio.Event()
        self._closed = self._killed = False
        self._numbers = itertools.count()
        self._asked: dict[int, anyio.Event] = {}
        self._answers: dict[int, msgspec.Raw] = {}
        self.ended = anyio.Event()
        self.serving = False
        self.ready = False

    @classmethod
    def start(
        cls, command: Sequence[str], fds: Collection[int], *, captured: bool = False
    ) -> Child:
        """Run ``command`` with one end of a new channel as its last argument, and with ``fds``.

        What a ``captured`` child writes comes by its ``outputs``, which somebody has to read.

        Raises:
            OSError: the system cannot start one more process.
        """
        ours, theirs = socket.socketpair()
        output = subprocess.PIPE if captured else None
        try:
            with theirs:
                process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    bufsize=0,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(theirs.fileno(), *fds),
                    # Of its own: a terminal's Ctrl-C is for the supervisor alone.
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, control.Channel(ours, control.Report))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def outputs(self) -> dict[str, int]:
        """The pipes of a captured child, by the names of its streams; closed after `attend`."""
        pipes = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        return {name: pipe.fileno() for name, pipe in pipes.items() if pipe is not None}

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

    @property
    def killed_by_stranger(self) -> bool:
        """Whether it ended as what the kernel kills for want of memory does."""
        return self._process.returncode == -signal.SIGKILL and not self._killed

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
            self._killed = True
            self._kill_group()

    async def kill_after(self, seconds: float, unless: Reprieve | None = None) -> bool:
        """Kill it unless it ends within ``seconds``; return whether that was necessary.

        It gets as many again each time that it is not to be killed yet, ``unless`` says.
        """
        while True:
            with anyio.move_on_after(seconds):
                await self.ended.wait()
            if self.ended.is_set():
                return False
            if unless is None or not await unless():
                break
        self.kill()
        return True

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone, unless it has ended."""
        self.poll()
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def post(self, message: msgspec.Struct, descriptors: tuple[int, ...] = ()) -> None:
        """Send ``message`` with copies of ``descriptors``; one that does not read is killed."""
        if self._closed:
            return
        try:
            self._channel.post(message, descriptors)
        except control.Oversize as exc:  # that is our fault, and what it does not hear is less
            log.error("server.oversize", pid=self.pid, error=str(exc))
        except control.BrokenChannel as exc:
            log.error("server.deaf", pid=self.pid, error=str(exc))
            self.kill()

    def descriptors(self, count: int) -> Sequence[int]:
        """Return the descriptors that came with what was just heard; raises as the channel's."""
        return self._channel.descriptors(count)

    async def attend(self, hear: Callable[[control.Report], None]) -> None:
        """Carry messages both ways until it has ended, and leave nothing of it behind."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deliver)
                tasks.start_soon(self._listen, hear)
                await self.ended.wait()
                # Its last words are already in the socket; something it forked may hold that open.
                with anyio.move_on_after(HASTE):
                    await self._silent.wait()
                tasks.cancel_scope.cancel()
        finally:
            self.kill()
            self._closed = True
            self._channel.close()

    def close_outputs(self) -> None:
        """Close the pipes of a captured child."""
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    async def survey(self) -> msgspec.Raw:
        """Return what it answers to `control.Survey`; the caller bounds the wait."""
        number = next(self._numbers)
        answered = self._asked[number] = anyio.Event()
        try:
            self.post(control.Survey(number))
            await answered.wait()
            return self._answers[number]
        finally:
            del self._asked[number]
            self._answers.pop(number, None)

    def _is_over(self) -> bool:
        if hasattr(os, "waitid"):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, flags) is not None
        return self._process.poll() is not None

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # the latter is macOS's for a zombie
            os.killpg(self.pid, signal.SIGKILL)

    async def _deliver(self) -> None:
        with suppress(control.BrokenChannel):  # its death is noticed elsewhere
            await self._channel.deliver()

    async def _listen(self, hear: Callable[[control.Report], None]) -> None:
        """Pass on what it says; one that speaks nonsense is killed."""
        try:
            async for message in self._channel:
                if not isinstance(message, control.Surveyed):
                    hear(message)
                elif message.number in self._asked:
                    self._answers[message.number] = message.document
                    self._asked[message.number].set()
        except control.BrokenChannel as exc:
            log.error("server.nonsense", pid=self.pid, error=str(exc))
            self.kill()
        finally:
            self._silent.set()


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
