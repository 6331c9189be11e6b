"""The registration of one instance, from the moment it is ready to its withdrawal."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
import msgspec
import structlog

from atomserve.registration.membership import Call, Membership, State
from atomserve.registration.registrar import Announced, CallFailed, Forgotten, Load, Registrar
from atomserve.settings import RegistrationSettings
from atomserve.telemetry.instance import RegistrationReport

log = structlog.get_logger("atomserve.registration")

Ask = Callable[[], Awaitable[Load]]
Tell = Callable[[State, str], None]


class Registration:
    """Makes the calls that a `Membership` decides on, one at a time, and survives each of them.

    ``ask`` says how busy the instance is; ``tell`` is called with state and trouble when these
    change.
    """

    def __init__(
        self,
        settings: RegistrationSettings,
        registrar: Registrar,
        announced: Announced,
        *,
        ask: Ask,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._registrar = registrar
        self._announced = announced
        self._ask = ask
        self._tell = tell
        self._clock = clock
        self._membership = Membership(settings, epoch=announced.epoch)
        self._told: tuple[State, str] = (self._membership.state, "")
        self._calls: dict[str, dict[str, int]] = {}
        self._scope: anyio.CancelScope | None = None
        self._news = anyio.Event()
        self._over = anyio.Event()

    def __repr__(self) -> str:
        return f"<Registration by {self._settings.registrar}: {self._membership}>"

    @property
    def claimed(self) -> bool:
        """Whether there is something to withdraw."""
        return self._membership.claimed

    def report(self) -> RegistrationReport:
        """Return how it stands, for who looks at the instance."""
        return RegistrationReport(
            registrar=self._settings.registrar,
            state=self._membership.state,
            detail=self._membership.trouble,
            instance=self._announced.instance,
            url=self._announced.url,
            epoch=self._membership.epoch,
            calls=self._calls,
        )

    def become_ready(self, ready: bool) -> None:
        """Take it that requests are welcome from now on, or not."""
        self._membership.become_ready(ready, self._clock())
        self._tell_changes()
        self._news.set()

    async def run(self) -> None:
        """Make the calls until `withdraw` has ended; no failure of a registrar comes out of it."""
        try:
            async with aclosing(self._registrar):
                while not self._membership.over:
                    await self._go_on()
        except (Exception, SystemExit):
            log.exception("registration.ended", registrar=self._settings.registrar)
        finally:
            self._over.set()

    async def withdraw(self) -> None:
        """Tell the control plane that this instance goes; return then, or when it takes too long.

        Nothing is told to it after that.
        """
        self._membership.stop()
        self._tell_changes()
        self._news.set()
        if self._scope is not None:
            self._scope.cancel()
        with anyio.move_on_after(self._settings.withdraw_timeout):
            await self._over.wait()

    async def _go_on(self) -> None:
        """Make the next call, or wait until it may be time for one."""
        self._news = anyio.Event()
        now = self._clock()
        call, at = self._membership.step(now)
        if call is not None and at <= now:
            await self._make(call)
            return
        with anyio.move_on_after(at - now):
            await self._news.wait()

    async def _make(self, call: Call) -> None:
        """Make one call; the only place where one is made, counted and, some day, traced."""
        begun = self._clock()
        self._membership.begin(call, begun)
        failure = await self._outcome(call)
        now = self._clock()
        if failure is None:
            self._membership.succeed(call)
        else:
            forgotten = isinstance(failure, Forgotten)
            self._membership.fail(call, _words(failure), now, forgotten=forgotten)
        outcome = "ok" if failure is None else "failed"
        counts = self._calls.setdefault(call, {"ok": 0, "failed": 0})
        counts[outcome] += 1
        facts = {"call": call, "outcome": outcome, "seconds": round(now - begun, 3)}
        log.debug("registration.called", **facts, error=self._membership.trouble)
        self._tell_changes(failure)

    async def _outcome(self, call: Call) -> BaseException | None:
        """Make ``call`` within its time and return why it failed, if it did."""
        limit = {
            "register": self._settings.register_timeout,
            "heartbeat": self._settings.timeout,
            "withdraw": self._settings.withdraw_timeout,
        }[call]
        found: list[BaseException | None] = []

        async def attempt() -> None:
            try:
                await self._ask_registrar(call)
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - a stranger's code
                found.append(exc)
            else:
                found.append(None)

        with anyio.move_on_after(limit) as scope:
            # Not while a withdrawal is on its way: a stop waits for it.
            self._scope = None if call == "withdraw" else scope
            try:
                # A task of its own: it may be cancelled by itself, which is not our end.
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(attempt)
            finally:
                self._scope = None
        if found:
            return found[0]
        late = anyio.current_time() >= scope.deadline
        return CallFailed(f"no answer within {limit:g} s" if late else "cut off")

    async def _ask_registrar(self, call: Call) -> None:
        announced = msgspec.structs.replace(self._announced, epoch=self._membership.epoch)
        if call == "register":
            await self._registrar.register(announced)
        elif call == "withdraw":
            await self._registrar.withdraw(announced)
        else:
            load = await self._ask() if self._registrar.carries_load else Load()
            await self._registrar.heartbeat(announced, load)

    def _tell_changes(self, failure: BaseException | None = None) -> None:
        """Say what has changed, once: a call that fails like the last one changes nothing."""
        state, trouble = self._membership.state, self._membership.trouble
        before, troubled = self._told
        if (state, trouble) == self._told:
            return
        self._told = (state, trouble)
        self._tell(state, trouble)
        if state == before and (troubled or not trouble):
            return
        facts = {
            "state": state,
            "registrar": self._settings.registrar,
            "instance": self._announced.instance,
            "epoch": self._membership.epoch,
        }
        if trouble:
            cause = {} if failure is None else {"cause": repr(failure)}
            log.warning("registration.changed", **facts, error=trouble, **cause)
        else:
            log.info("registration.changed", **facts)


def _words(failure: BaseException) -> str:
    """Return what may be shown to anybody of ``failure``, in one line."""
    if not isinstance(failure, CallFailed):
        return type(failure).__name__
    return " ".join(str(failure).split())[:200]


def boot() -> str:
    """Return a name for the time from this process's start to its end."""
    return os.urandom(8).hex()
