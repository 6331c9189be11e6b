"""The workers of one source: started, linked to every API process, replaced, ended."""

from __future__ import annotations

import time
from collections import Counter
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
from atomserve.supervisor.recycling import Recycling
from atomserve.supervisor.resources import Resources
from atomserve.supervisor.restarts import Restarts
from atomserve.supervisor.spares import Spare
from atomserve.supervisor.standing import Standing, paths_of
from atomserve.supervisor.worker import Inherited, Seat, Worker

EXCUSES = "30/60s"
"""How many deaths may be excused, within a time: each request that kills its worker costs three,
and ten of them are to be found in a minute; without a bound a model that always dies would be
restarted for ever."""
LATE = 1.0
"""Seconds in which an excuse may follow the death that would be one too many."""

log = structlog.get_logger("atomserve.supervisor")


class Owner(Protocol):
    """What a `WorkerGroup` asks of whoever runs it."""

    def claim(self, model: str, source: Source, paths: Sequence[str]) -> bool:
        """Take the name ``model`` and ``paths``; False if refused, which ends the instance."""

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
        inherited: Inherited,
    ) -> None:
        self.source = source
        self.standing = Standing(apis, emit)
        self.seats = [Seat(0)]
        self.workers: list[Worker] = []
        """All that run: starting, serving, spare and retiring."""
        self.restarts: Counter[str] = Counter()
        """Workers that were replaced, by the cause."""
        self.resources = Resources(settings.resources, self.seats, self.workers)
        self.takes_resources = False
        self._settings = settings
        self._start_worker = partial(Worker.start, command, settings, source, inherited=inherited)
        self._apis = apis
        self._owner = owner
        self._emit = emit
        named = settings.models.get(source.name or "", ModelSettings())
        self._options = Options(startup_timeout=named.startup_timeout or Options().startup_timeout)
        self._limit = Restarts(named.crash_limit or Options().crash_limit)
        self._extra = Restarts()  # of those that no slot needs yet
        self._excuses = Restarts(EXCUSES)
        self._begun = self._complete = self._over = False
        self._news = anyio.Event()
        self._spare = Spare()
        self._recycling = Recycling()
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<WorkerGroup {self.name}: {self.standing.state}, {self.workers}>"

    @property
    def name(self) -> str:
        """The model's name, or what comes nearest to it."""
        return self.standing.model or self.source.name or self.source.spec

    @property
    def spares(self) -> list[Worker]:
        """The workers that are in no slot's seat and shall be in none yet."""
        return [worker for worker in self.workers if worker.slot >= len(self.seats)]

    @property
    def _served(self) -> bool:
        """Whether there is a worker in every slot."""
        return all(seat.serving for seat in self.seats)

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
        for worker in self.workers:
            if (worker.slot, worker.pid) != (message.slot, message.pid) or worker.doomed:
                continue
            if message.reason == "unlinked":
                if not worker.unlinked:
                    worker.unlinked = True
                    self._tasks.start_soon(self._replace_unlinked, worker)
                continue
            self._tasks.start_soon(worker.end_hung, message.reason)
            if self._spare.worker is not None:
                worker.leaving.set()

    def excuse(self, message: control.Excused) -> None:
        """Do not hold a death against the model, whether it is still to come or has just been."""
        named = [w for w in self.workers if (w.slot, w.pid) == (message.slot, message.pid)]
        known = named or self._limit.died(message.pid)
        if not known or self._excuses.after_death(time.monotonic()) is None:
            return
        for worker in named:
            worker.excused.set()
        self._limit.forgive(message.pid)
        log.info("worker.excused", model=self.name, slot=message.slot, pid=message.pid)
        self._wake()

    def finish(self) -> None:
        """Let every worker unload and leave: no API process is left that could use it."""
        self._end()
        for worker in self.workers:
            self._tasks.start_soon(worker.retire, self._settings.unload_timeout + HASTE)

    def stop(self) -> None:
        """End every worker at once."""
        self._end()
        for worker in self.workers:
            self._tasks.start_soon(worker.stop)

    async def _keep(self, seat: Seat) -> None:
        """Keep a worker in ``seat``, one after another."""
        while (worker := await self._load(seat)) is not None:
            old = seat.give(worker)
            for child in self._apis.running.values():
                self._link(seat, child)
            self._tell_state()
            if old is not None and self._recycling.replaced(old):
                self._tasks.start_soon(self._retire, old)
            await worker.leaving.wait()

    async def _load(self, seat: Seat) -> Worker | None:
        """Take the spare for ``seat``, or start workers until one has loaded; None at the end."""
        while not self._over:
            if seat in self.seats and (spare := self._spare.take(seat)) is not None:
                return spare
            if pause := self._pause(seat):
                with anyio.move_on_after(pause):
                    await self._news.wait()
            elif (worker := self._start(seat)) is not None:
                await worker.settle(self._options.startup_timeout)
                # One that learned too late that it is not wanted may have loaded all the same.
                if worker.serving and not self._over:
                    self._wake()
                    return worker
        return None

    def _pause(self, seat: Seat) -> float:
        """Return the seconds to wait before a worker is started for ``seat``."""
        now = time.monotonic()
        pause = self._limit.pause(now)
        if seat.serving or seat not in self.seats:
            return max(pause, self._extra.pause(now))
        return pause

    def _wake(self) -> None:
        """Have whoever waits to start a worker look again."""
        self._news.set()
        self._news = anyio.Event()

    def _end(self) -> None:
        self._over = True
        self._wake()

    def _start(self, seat: Seat) -> Worker | None:
        """Start one worker; one that cannot be started has died."""
        try:
            worker = self._start_worker(seat=seat)
        except OSError as exc:
            end = WorkerEnded(self.name, seat.index, 0, "died", str(exc), None)
            self._bear_death(end, self._after_death(0, needed=not self._served))
            return None
        worker.model = self.name
        self.workers.append(worker)
        self._emit(WorkerStarted(self.name, seat.index, worker.pid))
        self._tasks.start_soon(self._attend, worker)
        return worker

    async def _attend(self, worker: Worker) -> None:
        await worker.attend(partial(self._hear, worker))
        if self.standing.model:
            self._apis.post(control.Lost(self.standing.model, worker.pid))
        spent = self._options.idempotent and self._limit.spent(time.monotonic())
        if spent and not worker.dismissed and not self._over:
            with anyio.move_on_after(LATE):
                await worker.excused.wait()
        self._bury(worker)

    def _hear(self, worker: Worker, message: control.Report) -> None:
        match message:
            case control.Described():
                self._describe(worker, message)
            case control.Loaded(seconds) if self.takes_resources:
                log.info("worker.loaded", **worker.facts, seconds=round(seconds, 3))
                self._tasks.start_soon(self._replay, worker)
            case control.Loaded(seconds):
                worker.begin()
                log.info("worker.loaded", **worker.facts, seconds=round(seconds, 3))
            case control.ResourceDone():
                worker.holdings.hear(message)
            case control.Broken(detail):
                worker.cause, worker.detail = "broken", detail
            case control.Fatal(text, exit_code) if not self._begun:
                worker.dismissed = True
                self._owner.fail(text, exit_code)
            case control.Fatal(text, _):
                worker.cause, worker.detail = "broken", text
            case control.Tired(reason) if any(seat.worker is worker for seat in self.seats):
                self._recycling.ask(worker, reason)

    def _describe(self, worker: Worker, message: control.Described) -> None:
        """Learn what ``worker`` serves, and tell the API processes if that is new."""
        if self._over or not (self._begun or self._begin(message)):
            return
        worker.model = message.model
        if message.model != (self.standing.model or message.model):
            worker.detail = f"it calls itself {message.model} now, not {self.standing.model}"
            worker.child.kill()
            return
        worker.state = "loading"
        worker.startup.deadline = worker.began + message.options.startup_timeout
        self._options = message.options
        self.takes_resources = message.resources
        self.standing.offer(control.Offer(message.model, message.signature, message.options))
        self._tell_state()

    async def _replay(self, worker: Worker) -> None:
        """Let a worker serve that has loaded, once it has the model's resources, too."""
        why = await self.resources.replay(worker)
        if why and not worker.child.ended.is_set():
            worker.cause, worker.detail = "broken", why
            worker.child.kill()

    def _begin(self, message: control.Described) -> bool:
        """Decide at the first description where the wrapper runs, and how often."""
        options = message.options
        if not self._owner.claim(message.model, self.source, paths_of(message.signature)):
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

    async def _replace_unlinked(self, worker: Worker) -> None:
        """Put another in the place of one that an API process has lost the link to."""
        with anyio.move_on_after(HASTE):  # most links end because their worker does
            await worker.child.ended.wait()
        if worker.state != "ready" or worker.child.ended.is_set() or self._over:
            return
        log.error("worker.unlinked", **worker.facts)
        worker.cause, worker.detail = "unlinked", "an API process lost its link to it"
        self._limit.after_death(time.monotonic(), counts=False)
        worker.leaving.set()
        await self._retire(worker)

    async def _retire(self, worker: Worker) -> None:
        """Let ``worker`` end its jobs and leave, as long as anybody waits for them."""
        model, options = self.standing.model, self._options
        if worker.serving:
            self._apis.post(control.Unlink(model, worker.pid))
        patience = options.timeout + options.grace + options.unload_timeout
        await worker.retire(patience, partial(self._apis.waiting_for, model, worker.pid))

    def _bury(self, worker: Worker) -> None:
        """Forget a worker that has ended, and let the next one come."""
        self.workers.remove(worker)
        ordered = worker.dismissed or self._over
        cause = "stopped" if self._over else worker.cause
        end = WorkerEnded(self.name, worker.slot, worker.pid, cause, worker.reason, None)
        if ordered:
            self._emit(end)
            tell = log.debug if cause == "stopped" else log.info
            tell("worker.ended", **worker.facts, cause=cause, reason=worker.reason)
        elif worker.excused.is_set():
            self._bear_death(end, 0.0)
        else:
            # Of one that no slot needs yet, the others know nothing.
            needed = worker.seated or not self._served
            self._bear_death(end, self._after_death(worker.pid, needed=needed))
        if not self._over:
            self.restarts[cause] += 1
        self._spare.bury(worker)
        self._recycling.bury(worker)
        self._wake()
        self._tell_state(worker.reason)
        worker.settled.set()
        worker.leaving.set()

    def _after_death(self, pid: int, *, needed: bool) -> float | None:
        """Return the seconds until another is started; None if the model is given up."""
        if needed:
            return self._limit.after_death(time.monotonic(), pid)
        return self._extra.after_death(time.monotonic(), pid, counts=False)

    def _bear_death(self, end: WorkerEnded, delay: float | None) -> None:
        """Tell of a death, and whether another worker is started."""
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
        self._end()
        self.standing.become("failed", reason)
        for worker in self.workers:
            self._tasks.start_soon(self._retire, worker)

    def _tell_state(self, detail: str = "") -> None:
        """Ready is a model that had a worker in every slot once, and has one in any now."""
        standing = self.standing
        if self._over:
            return
        serving = [seat for seat in self.seats if seat.serving]
        if not self._complete and len(serving) == len(self.seats):
            self._complete = True
            if self._options.spares:  # it shall not delay the first start
                self._tasks.start_soon(self._spare.keep, self._load, Seat(len(self.seats)))
        if serving and self._complete:
            standing.become("ready")
        else:
            standing.become("loading", detail or standing.detail)
