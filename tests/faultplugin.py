"""A plugin that misbehaves on request: the act of each request says how."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from atomserve import Tensor, Wrapper

Floats = Annotated[NDArray[np.float32], Tensor("float32", (-1,))]
Square = Annotated[NDArray[np.float32], Tensor("float32", (2, 2))]

ERRORS: dict[str, Callable[[], BaseException]] = {
    "Exception": Exception,
    "BaseException": BaseException,
    "SystemExit": lambda: SystemExit(7),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "CancelledError": asyncio.CancelledError,
}
SECRET = "swordfish"
"""Stands in every error's text, and in no answer."""


def error(name: str) -> BaseException:
    raised = ERRORS[name]()
    raised.add_note(SECRET)
    return raised


class Fault(Wrapper):
    """Do what ``act`` says, and answer with ``token``."""

    def load(self, config: dict[str, Any]) -> None:
        self.kept: list[Any] = []
        self.inside = 0

    def predict(self, act: str = "echo", n: float = 0, text: str = "", token: str = "") -> Any:
        found = getattr(self, f"do_{act}")(n, text)
        return token if found is None else found

    def do_echo(self, n: float, text: str) -> None:
        pass

    def do_pid(self, n: float, text: str) -> int:
        return os.getpid()

    # What never ends, or too late.

    def do_sleep(self, n: float, text: str) -> None:
        time.sleep(n)

    def do_spin(self, n: float, text: str) -> None:
        """Hold the GIL, as a pure Python loop does."""
        until = time.monotonic() + n
        while time.monotonic() < until:
            pass

    def do_spin_in_c(self, n: float, text: str) -> None:
        """Hold the GIL in C: nothing of Python runs in this process any more."""
        ctypes.PyDLL(None).sleep(int(n))

    def do_deafen(self, n: float, text: str) -> None:
        """Leave nothing but SIGKILL to end this process by."""
        libc = ctypes.CDLL(None)
        for number in (signal.SIGTERM, signal.SIGABRT, signal.SIGINT):
            libc.signal(int(number), ctypes.c_void_p(1))
        self.do_spin_in_c(n, text)

    # What ends the process.

    def do_segfault(self, n: float, text: str) -> None:
        ctypes.string_at(0)

    def do_exit(self, n: float, text: str) -> None:
        """Leave at once; the file ``text`` counts how often."""
        if text:
            with open(text, "ab", 0) as counts:
                counts.write(b"x")
        os._exit(int(n))

    def do_kill(self, n: float, text: str) -> None:
        os.kill(os.getpid(), int(n))

    def do_kill_once(self, n: float, text: str) -> None:
        """Die at the first visit; the file ``text`` remembers it."""
        if not Path(text).exists():
            Path(text).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    # What fails.

    def do_raise(self, n: float, text: str) -> None:
        raise error(text)

    def do_unwritable(self, n: float, text: str) -> Any:
        return object()

    # What stays behind.

    def do_allocate(self, n: float, text: str) -> None:
        """Keep ``n`` MiB of touched memory."""
        self.kept.append(b"\1" * int(n * 1024 * 1024))

    def do_open(self, n: float, text: str) -> None:
        self.kept += [os.open("/dev/null", os.O_RDONLY) for _ in range(int(n))]

    def do_memfd(self, n: float, text: str) -> None:
        import mmap

        fd = os.memfd_create("atomserve-of-a-plugin")
        os.ftruncate(fd, mmap.PAGESIZE)
        self.kept.append(mmap.mmap(fd, mmap.PAGESIZE))
        os.close(fd)

    def do_shm(self, n: float, text: str) -> None:
        Path("/dev/shm", text).write_bytes(b"left behind")

    def do_thread(self, n: float, text: str) -> None:
        threading.Thread(target=time.sleep, args=(n,), daemon=True).start()

    def do_fork(self, n: float, text: str) -> int:
        """Leave a copy of this process, with all that it has open; ``text`` is its session."""
        if pid := os.fork():
            return pid
        if text == "own":
            os.setsid()
        time.sleep(n)
        os._exit(0)

    def do_orphan(self, n: float, text: str) -> int:
        """Leave a process whose parent is gone, and which ends after ``n`` seconds."""
        code = (
            "import os, sys, time; pid = os.fork(); "
            f"print(pid) if pid else (os.close(1), time.sleep({n}))"
        )
        made = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
        return int(made.stdout)

    def do_zombie(self, n: float, text: str) -> int:
        if pid := os.fork():
            return pid
        os._exit(0)

    def do_litter(self, n: float, text: str) -> None:
        """Change everything that a process has only one of."""
        os.chdir(text)
        os.umask(0o777)
        os.environ.clear()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        tempfile.mkstemp(dir=text)
        for number in (0, 1, 2):
            os.close(number)

    def do_print(self, n: float, text: str) -> None:
        """Write bytes that are no text, and lines that look like our own frames and log."""
        noise = bytes(range(256)) * int(n) + b'\n{"event":"worker.died"}\n\r\n\0\0\0\x10Stop\n'
        for stream in (sys.stdout, sys.stderr):
            stream.buffer.write(noise)
            stream.buffer.flush()
        os.write(1, noise)

    def do_overlap(self, n: float, text: str) -> int:
        """Answer with how many are in here at once."""
        self.inside += 1
        time.sleep(n)
        inside = self.inside
        self.inside -= 1
        return inside


class FaultAsync(Wrapper):
    """Raise the error called ``text``, or answer with this process's number."""

    async def predict(self, text: str = "") -> int:
        await asyncio.sleep(0)
        if text:
            raise error(text)
        return os.getpid()


class FaultBatch(Wrapper):
    """Answer each of a batch with its number; those below zero end the process."""

    idempotent = True
    queue_size = 64
    max_batch_delay = 1.0

    def predict_batch(self, requests: list[int]) -> list[int]:
        if min(requests) < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        return requests


class FaultTensor(Wrapper):
    """Answer with a tensor, its sum in front, having done what ``act`` says."""

    def load(self, config: dict[str, Any]) -> None:
        self.kept: list[Any] = []

    def predict(self, tensor: Floats, act: str = "echo") -> Floats:
        if act == "write":
            tensor[:] = -1.0
        elif act == "force":
            tensor.flags.writeable = True
        elif act == "keep":
            self.kept.append(tensor[1:])
        elif act == "forget":
            self.kept.clear()
        elif act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return tensor


class FaultResult(Wrapper):
    """Answer with something other than the two by two floats that were promised."""

    def predict(self, act: str) -> Square:
        results: dict[str, Callable[[], Any]] = {
            "right": lambda: np.ones((2, 2), np.float32),
            "shape": lambda: np.ones((3,), np.float32),
            "dtype": lambda: np.array([["a", "b"], ["c", "d"]]),
            "object": lambda: np.array([[object()] * 2] * 2),
            "text": lambda: "no array",
            "nothing": lambda: None,
        }
        return results[act]()  # type: ignore[no-any-return]


class FaultSize(Wrapper):
    """Answer with ``size`` zeros."""

    def predict(self, size: int) -> Floats:
        return np.zeros(size, np.float32)


class FaultStream(Wrapper):
    """Answer with ``count`` numbers, and then do what ``act`` says."""

    def predict(self, count: int = 3, act: str = "end", text: str = "") -> Iterator[Any]:
        yield from range(count)
        if act == "raise":
            raise error(text)
        if act == "unwritable":
            yield object()
        if act == "kill":
            time.sleep(0.2)  # what was said has left
            os.kill(os.getpid(), signal.SIGKILL)
        while act == "forever":
            time.sleep(0.001)
            yield 0
        if act == "hang":
            time.sleep(3600)


class FaultLoad(Wrapper):
    """Fail, or take long, before any request."""

    def load(self, config: dict[str, Any]) -> None:
        if "count" in config:
            with Path(config["count"]).open("a") as starts:
                print(os.getpid(), file=starts)
        time.sleep(float(config.get("sleep", 0)))
        if config.get("act") == "raise":
            raise error(config.get("error", "Exception"))
        if config.get("act") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def predict(self, token: str = "") -> str:
        return token
