"""The workers of one source: started, linked to every API process, replaced, ended."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import anyio
import anyio.abc
import msgspec
import structlog

from atomserve import control, exits
from atomserve.engine.options import Options
from atomserve.plugins import Source
from atomserve.settings import ModelSettings, Settings
from atomserve.supervisor.api_processes import ApiProcesses
from atomserve.supervisor.children import HASTE, Child
from atomserve.supervisor.events import Event, WorkerEnded, WorkerStarted
from atomserve.supervisor.pairs import link
from atomserve.supervisor.restarts import Restarts
from atomserve.supervisor.spares import Spare
from atomserve.supervisor.standing import Standing
from atomserve.supervisor.worker import Seat, Worker

log = structlog.get_logger("atomserve.supervisor")


class Owner(Protocol):
    """What a `WorkerGroup` asks of whoever runs it."""

    def claim(self, model: str, source: Source) -> bool:
        """Take the name ``model``; False if it is refused, which ends the instance."""

    def fail(self, message: str, exit_code: int) -> None:
        """End the instance at once."""


class WorkerGroup:
    """Keeps the workers of one source: as many as its model has slots, and its spare."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        command: Sequence[str],
        *,
        apis: ApiProcesses,
        owner: Owner,
        emit: Callable[[Event], None],
        log_fd: int,
    ) -> None:
        self.source = source
        self.standing = Standing(apis, emit)
        self.seats = [Seat(0)]
        self.workers: list[Worker] = []
        """All that run: starting, serving, spare and retiring."""
        self.restarts: Counter[str] = Counter()
        """Workers that were replaced, by the cause."""
        self._settings = settings
        self._start_worker = partial(Worker.start, command, settings, source, log_fd=log_fd)
        self._apis = apis
        self._owner = owner
        self._emit = emit
        named = settings.models.get(source.name or "", ModelSettings())
        self._options = Options(startup_timeout=named.startup_timeout or Options().startup_timeout)
        self._limit = Restarts(named.crash_limit or Options().crash_limit)
        self._begun = self._complete = False
        self._spare = Spare()
        self._tired: deque[Worker] = deque()
        self._recycling: Worker | None = None
        self._over = anyio.Event()
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<WorkerGroup {self.name}: {self.standing.state}, {self.workers}>"

    @property
    def name(self) -> str:
        """The model's name, or what comes nearest to it."""
        return self.standing.model or self.source.name or self.source.spec

    @property
    def spares(self) -> list[Worker]:
        """The workers that wait to replace another, or will."""
        dealt = {seat.deal for seat in self.seats}
        return [
            worker
            for worker in self.workers
            if worker.deal not in dealt and worker.state != "retiring"
        ]

    async def run(self) -> None:
        """Keep the workers until they are told to stop, or die too often."""
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._keep, self.seats[0])

    def introduce(self, child: Child) -> None:
        """Tell a new API process all that the others know."""
        self.standing.repeat_offer(child)
        for seat in self.seats:
            self._link(seat, child)
        self.standing.repeat_state(child)

    def condemn(self, message: control.Condemned) -> None:
        """Put another in the place of a worker that must be killed, if it still runs."""
        wanted = (message.slot, message.pid)
        for worker in self.workers:
            if (worker.slot, worker.pid) == wanted and not worker.doomed:
                self._tasks.start_soon(worker.end_hung, message.reason)
                if self._spare.worker is not None:
                    worker.leaving.set()

    def finish(self) -> None:
        """Let every worker unload and leave: no API process is left that could use it."""
        self._over.set()
        for worker in self.workers:
            self._tasks.start_soon(worker.retire, self._settings.unload_timeout + HASTE)

    def stop(self) -> None:
        """End every worker at once."""
        self._over.set()
        for worker in self.workers:
            self._tasks.start_soon(worker.stop)

    async def _keep(self, seat: Seat) -> None:
        """Keep a worker in ``seat``, one after another."""
        while (worker := self._spare.take(seat) or await self._load(seat.deal)) is not None:
            old = seat.give(worker)
            for child in self._apis.running.values():
                self._link(seat, child)
            self._tell_state()
            if old is not None and old is self._recycling:
                self._tasks.start_soon(self._retire, old)
            await worker.leaving.wait()

    async def _load(self, deal: int) -> Worker | None:
        """Start workers until one has loaded; None when there shall be none any more."""
        while not self._over.is_set():
            if pause := self._limit.pause(time.monotonic()):
                with anyio.move_on_after(pause):
                    await self._over.wait()
            elif (worker := self._start(deal)) is not None:
                await worker.settle(self._options.startup_timeout)
                # One that learned too late that it is not wanted may have loaded all the same.
                if worker.serving and not self._over.is_set():
                    return worker
        return None

    def _start(self, deal: int) -> Worker | None:
        """Start one worker; one that cannot be started has died."""
        try:
            worker = self._start_worker(deal=deal)
        except OSError as exc:
            self._bear_death(WorkerEnded(self.name, deal, 0, "died", str(exc), None))
            return None
        worker.model = self.name
        self.workers.append(worker)
        self._emit(WorkerStarted(self.name, deal, worker.pid))
        self._tasks.start_soon(self._attend, worker)
        return worker

    async def _attend(self, worker: Worker) -> None:
        await worker.attend(partial(self._hear, worker))
        self._bury(worker)

    def _hear(self, worker: Worker, message: control.Report) -> None:
        match message:
            case control.Described():
                self._describe(worker, message)
            case control.Loaded(seconds):
                worker.state = "ready"
                worker.settled.set()
                log.info("worker.loaded", **worker.facts, seconds=round(seconds, 3))
            case control.Broken(detail):
                worker.cause, worker.detail = "broken", detail
            case control.Fatal(text, exit_code) if not self._begun:
                worker.dismissed = True
                self._owner.fail(text, exit_code)
            case control.Fatal(text, _):
                worker.cause, worker.detail = "broken", text
            case control.Tired(reason) if any(seat.worker is worker for seat in self.seats):
                worker.cause = reason
                self._tired.append(worker)
                self._recycle_next()

    def _describe(self, worker: Worker, message: control.Described) -> None:
        """Learn what ``worker`` serves, and tell the API processes if that is new."""
        if self._over.is_set() or not (self._begun or self._begin(message)):
            return
        worker.model = message.model
        if message.model != (self.standing.model or message.model):
            worker.detail = f"it calls itself {message.model} now, not {self.standing.model}"
            worker.child.kill()
            return
        worker.state = "loading"
        worker.startup.deadline = worker.began + message.options.startup_timeout
        self._options = message.options
        self.standing.offer(control.Offer(message.model, message.signature, message.options))
        self._tell_state()

    def _begin(self, message: control.Described) -> bool:
        """Decide at the first description where the wrapper runs, and how often."""
        options = message.options
        if not self._owner.claim(message.model, self.source):
            return False
        if options.executor == "thread":
            self.stop()
            self._apis.host(self.source)
            return False
        self._begun = True
        # All slots lost at once are one misfortune, and no reason to give the model up.
        self._limit.allow(options.crash_limit, least=options.slots)
        for index in range(1, options.slots):
            self.seats.append(Seat(index))
            self._tasks.start_soon(self._keep, self.seats[index])
        return True

    def _link(self, seat: Seat, child: Child) -> None:
        """Connect the worker in ``seat`` with an API process."""
        worker = seat.worker
        if worker is None or not worker.serving:
            return
        order = control.Link(self.standing.model, seat.index, worker.pid)
        try:
            link(order, child, worker.child)
        except OSError as exc:
            worker.detail = f"not linked: {exc}"
            worker.child.kill()

    def _recycle_next(self) -> None:
        """Replace the next worker that asked for it, unless another is being replaced."""
        while self._tired and self._recycling is None:
            worker = self._tired.popleft()
            if worker.state == "ready" and not worker.doomed:
                self._recycling = worker
                log.info("worker.recycled", **worker.facts, reason=worker.cause)
                worker.leaving.set()

    async def _retire(self, worker: Worker) -> None:
        """Let ``worker`` end its jobs and leave."""
        if worker.serving:
            self._apis.post(control.Unlink(self.standing.model, worker.pid))
        options = self._options
        longest = max(options.timeout, options.stream_timeout or 0.0)
        await worker.retire(longest + options.grace + options.unload_timeout)

    def _bury(self, worker: Worker) -> None:
        """Forget a worker that has ended, and let the next one come."""
        self.workers.remove(worker)
        ordered = worker.dismissed or self._over.is_set()
        cause = "stopped" if self._over.is_set() else worker.cause
        if self.standing.model:
            self._apis.post(control.Lost(self.standing.model, worker.pid))
        end = WorkerEnded(self.name, worker.slot, worker.pid, cause, worker.reason, None)
        if ordered:
            self._emit(end)
            tell = log.debug if cause == "stopped" else log.info
            tell("worker.ended", **worker.facts, cause=cause, reason=worker.reason)
        else:
            self._bear_death(end)
        if not self._over.is_set():
            self.restarts[cause] += 1
        self._spare.bury(worker)
        if worker is self._recycling:
            self._recycling = None
            self._recycle_next()
        self._tell_state(worker.reason)
        worker.settled.set()
        worker.leaving.set()

    def _bear_death(self, end: WorkerEnded) -> None:
        """Decide when the next worker is started, or that there is none."""
        delay = self._limit.after_death(time.monotonic())
        end = msgspec.structs.replace(end, restart_in=delay)
        self._emit(end)
        log.error("worker.died", **msgspec.structs.asdict(end))
        if delay is None:
            self._give_up(end.reason)

    def _give_up(self, reason: str) -> None:
        """Serve this model no more; the others go on."""
        if not self._begun:
            text = f"{self.source}: its process ends before it is imported: {reason}"
            self._owner.fail(text, exits.CONFIG)
            return
        self._over.set()
        self.standing.become("failed", reason)
        for worker in self.workers:
            self._tasks.start_soon(self._retire, worker)

    def _tell_state(self, detail: str = "") -> None:
        """Ready is a model that had a worker in every slot once, and has one in any now."""
        standing = self.standing
        if self._over.is_set():
            return
        serving = [seat for seat in self.seats if seat.serving]
        if not self._complete and len(serving) == len(self.seats):
            self._complete = True
            if self._options.spares:  # it shall not delay the first start
                self._tasks.start_soon(self._spare.keep, self._load, len(self.seats))
        if serving and self._complete:
            standing.become("ready")
        else:
            standing.become("loading", detail or standing.detail)
