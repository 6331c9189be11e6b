"""The worker process: one slot of one model, serving every API process that is linked to it.

    python -m atomserve.backends.worker FD

``FD`` is its end of the control channel. Nothing but this process imports the plugin.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import anyio
import msgspec
import structlog

from atomserve import control, exits, lifeline
from atomserve.engine.options import Options
from atomserve.errors import AtomError, PluginError
from atomserve.heap import spare_the_old
from atomserve.settings import ModelSettings
from atomserve.telemetry.instance import WorkerDocument
from atomserve.telemetry.vitals import own_memory

if TYPE_CHECKING:
    from atomserve.backends.resources import ResourceOrders
    from atomserve.backends.servable import Servable
    from atomserve.signature import Signature

log = structlog.get_logger("atomserve.backends")

LIBRARY_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
SHOWN = 256 * 1024
"""Bytes of examples that the API documentation shows at most; all of them are run."""
MEMORY_CHECK = 1.0
"""Seconds between two looks at this process's memory, while requests come."""

log = structlog.get_logger("atomserve.worker")


def main() -> NoReturn:
    """Serve as the child whose control socket is the last argument of the command line."""
    lifeline.hold()
    sock = socket.socket(fileno=int(sys.argv[-1]))
    try:
        configure = control.read_first(sock, control.ConfigureWorker)
    except control.BrokenChannel:
        lifeline.leave(exits.CRASHED)
    if os.getppid() != configure.parent:  # it died before the lifeline was taken
        lifeline.leave(exits.CRASHED)
    os.set_inheritable(sock.fileno(), False)
    faulthandler.enable()
    # A core file would hold what clients sent.
    _limit(resource.RLIMIT_CORE, 0)
    if configure.open_files is not None:
        _limit(resource.RLIMIT_NOFILE, configure.open_files)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        model, runner, options = prepare(configure)
        described = control.Described(
            model, tell(model, runner.signature), options, _takes_resources(runner)
        )
    except AtomError as exc:
        sock.sendall(control.frame(control.Fatal(str(exc), exits.CONFIG)))
        lifeline.leave(exits.CONFIG)
    channel: control.Channel[control.Order] = control.Channel(sock, control.Order)
    channel.post(described)
    anyio.run(Worker(model, runner, options, channel).run, backend_options=_fast_loop())
    raise AssertionError("unreachable")


def _takes_resources(runner: Servable) -> bool:
    from atomserve.backends.servable import Resourceful

    return isinstance(runner, Resourceful) and runner.takes_resources


def _limit(kind: int, soft: int) -> None:
    resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def _fast_loop() -> dict[str, Any]:
    from importlib.util import find_spec

    return {"use_uvloop": find_spec("uvloop") is not None}


def prepare(configure: control.ConfigureWorker) -> tuple[str, Servable, Options]:
    """Import the wrapper, in the environment that its settings ask for.

    Raises:
        PluginError: it cannot be imported or validated.
        ConfigError: its configuration does not fit.
    """
    from atomserve.loading import likely_name
    from atomserve.plugins import Source

    settings = configure.settings
    source = msgspec.convert(configure.source, Source)
    known = settings.models.get(likely_name(source) or "", ModelSettings())
    set_environment(known, configure.deal)

    # Not before: numpy and others read the environment when they are imported.
    from atomserve.backends import prepared
    from atomserve.telemetry.logs import configure_logging
    from atomserve.telemetry.skywalking import start_agent

    stream = _stream(configure.log)
    configure_logging(settings.log_format, settings.log_level, stream=stream, kept=settings.logs)
    start_agent(settings.skywalking, meters=False)
    found = prepared.prepare(source, settings)
    return found.name, found.make_runner(), found.options


def _stream(fd: int) -> TextIO:
    os.set_inheritable(fd, False)
    # Nobody keeps the file object: it must not take the descriptor with it.
    return os.fdopen(fd, "w", closefd=False)


def set_environment(model: ModelSettings, deal: int) -> None:
    """Set what libraries read when they are imported: variables, thread caps, the device."""
    os.environ.update(model.env)
    if model.threads is not None:
        os.environ.update(dict.fromkeys(LIBRARY_THREADS, str(model.threads)))
    if model.devices:
        device = model.devices[deal % len(model.devices)]
        os.environ["ATOMSERVE_DEVICE"] = device
        kind, _, number = device.partition(":")
        if kind in ("cuda", "cpu"):
            os.environ["CUDA_VISIBLE_DEVICES"] = number if kind == "cuda" else ""


def tell(model: str, signature: Signature) -> msgspec.Raw:
    """Write ``signature`` for the API processes, with the examples that fit beside it.

    Raises:
        PluginError: it is too large without any.
    """
    kept, left_out, room = [], [], SHOWN
    for number, example in enumerate(signature.examples, 1):
        size = len(msgspec.json.encode(example))
        if size > room:
            left_out.append(number)
        else:
            kept.append(example)
            room -= size
    if left_out:
        log.warning("examples.left_out", model=model, numbers=left_out, most=SHOWN)
    told = msgspec.json.encode(msgspec.structs.replace(signature, examples=tuple(kept)))
    if (size := len(told) - (SHOWN - room)) > control.MAX_FRAME // 2:
        raise PluginError(
            f"plugin {model!r}: its signature is too large: {size} bytes as JSON, "
            f"of which {control.MAX_FRAME // 2} are allowed"
        )
    return msgspec.Raw(told)


class Worker:
    """Loads one copy of the wrapper, serves its links, obeys the supervisor."""

    def __init__(
        self,
        model: str,
        runner: Servable,
        options: Options,
        channel: control.Channel[control.Order],
    ) -> None:
        self._model = model
        self._runner = runner
        self._options = options
        self._channel = channel
        self._served = 0
        self._looked = 0.0
        self._tired = False
        self._retired = False

    async def run(self) -> NoReturn:
        """Serve until told to leave; ends the process."""
        from atomserve.backends.desk import Desk
        from atomserve.backends.local import open_slot
        from atomserve.engine.loops import Mailbox

        self._gone = anyio.Event()
        self._desk = Desk(
            self._model,
            self._options,
            self._over,
            self._check_end,
            self._hung,
            whole=self._runner.batches,
        )
        self._slot = open_slot(self._runner, self._options, Mailbox(), self._desk.turn.ask)
        self._desk.begin(self._slot)
        self._resources = self._resource_orders()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._channel.deliver)
            tasks.start_soon(self._obey)
            await self._load()
            await self._gone.wait()
            self._slot.stop()
            with anyio.move_on_after(self._options.unload_timeout):
                await self._slot.life.ended.wait()
            lifeline.leave(0)
        raise AssertionError("unreachable")

    def _resource_orders(self) -> ResourceOrders | None:
        from atomserve.backends.resources import ResourceOrders
        from atomserve.backends.servable import Resourceful
        from atomserve.backends.threads import ThreadSlot

        if not (isinstance(self._runner, Resourceful) and isinstance(self._slot, ThreadSlot)):
            return None
        return ResourceOrders(self._runner, self._slot, self._channel.post)

    async def _load(self) -> None:
        began = time.monotonic()
        self._slot.start()
        await self._slot.life.loaded.wait()
        if (error := self._slot.life.error) is not None:
            self._channel.post(control.Broken(str(error)))
            await self._channel.flush()
            lifeline.leave(exits.CRASHED)
        spare_the_old()
        self._channel.post(control.Loaded(time.monotonic() - began))

    async def _obey(self) -> None:
        async for order in self._channel:
            match order:
                case control.Link():
                    await self._link(order)
                case control.Retire():
                    self._retired = True
                    self._check_end()
                case control.Stop():
                    lifeline.leave(0)
                case control.LoadResource() if self._resources is not None:
                    self._resources.load(order, self._channel)
                case control.UnloadResource() if self._resources is not None:
                    self._resources.unload(order)
                case control.Survey(number):
                    self._channel.post(control.Surveyed(number, self._survey()))
        lifeline.leave(exits.CRASHED)  # the supervisor is gone

    async def _link(self, order: control.Link) -> None:
        try:
            frames, side = map(_socket, self._channel.descriptors(order.descriptors))
        except control.Lacking as exc:  # the other end finds its sockets closed, and tells
            log.error("worker.not_linked", model=self._model, error=str(exc))
            return
        await self._desk.link(frames, side)

    def _survey(self) -> msgspec.Raw:
        document = WorkerDocument(
            requests=self._served,
            busy=self._slot.busy,
            answer_bytes=sum(caller.answer_bytes for caller in self._desk.callers),
        )
        return msgspec.Raw(msgspec.json.encode(document))

    def _over(self) -> None:
        """A job has ended."""
        self._served += 1
        quick = self._slot.quick and self._options.capacity == 1
        self._desk.resize(self._desk.ahead if quick else self._options.capacity)
        if not self._tired and (reason := self._tiredness()):
            self._tired = True
            self._channel.post(control.Tired(reason))
        self._check_end()

    def _hung(self) -> None:
        """End, since nobody else would end this worker; it says where it hangs before."""
        log.error("worker.hung", model=self._model, pid=os.getpid())
        faulthandler.dump_traceback(file=2)
        lifeline.leave(exits.CRASHED)

    def _check_end(self) -> None:
        if self._retired and not self._desk.callers:
            self._gone.set()

    def _tiredness(self) -> str:
        options = self._options
        if options.max_requests is not None and self._served >= options.max_requests:
            return "max_requests"
        if options.max_memory is None:
            return ""
        if (now := time.monotonic()) - self._looked < MEMORY_CHECK:
            return ""
        self._looked = now
        return "max_memory" if (own_memory(os.getpid()) or 0) > options.max_memory else ""


def _socket(fd: int) -> socket.socket:
    return socket.socket(fileno=fd)


if __name__ == "__main__":
    main()
