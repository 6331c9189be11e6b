"""Serve wrappers for tests: real HTTP on a free port, for as long as a block."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx2
import msgspec
import numpy as np
from anyio.from_thread import start_blocking_portal

from atomserve.app import App, thread_backend
from atomserve.backends.prepared import prepare_class
from atomserve.background import running
from atomserve.errors import AtomError, NotReady, PluginError, all_errors
from atomserve.guard.failures import bare
from atomserve.hosting.lifespan import Lifespan
from atomserve.loading import load_class, served_name
from atomserve.plugins import Source, check_tables, installed, loaders, resolve
from atomserve.server.adapters import serve_hypercorn
from atomserve.settings import Executor, Settings
from atomserve.supervisor.listeners import listen
from atomserve.wrapper import Wrapper

__all__ = ["Client", "serve"]

MSGPACK = "application/msgpack"
NDJSON = "application/x-ndjson"
LINGER = 1.0
"""Seconds that requests get to be refused in at the end, and connections to close."""


class Client(httpx2.Client):
    """An HTTP client of one server, which can also call a model as the function that it is."""

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return str(self.base_url).rstrip("/")

    def call(self, model: str, /, **inputs: Any) -> Any:
        """Return the answer of ``model``: plain values, arrays for tensors, bytes for media.

        An input may be a plain value, a `msgspec.Struct`, bytes, an array, or the `pathlib.Path`
        of a file. A stream's answers come as a list.

        Raises:
            AtomError: what the server answered, as the class of its code.
        """
        answer = self.post(
            f"/v1/models/{model}/predict",
            content=msgspec.msgpack.encode(inputs, enc_hook=packed),
            headers={"Content-Type": MSGPACK, "Accept": f"{MSGPACK}, {NDJSON};q=0.5"},
        )
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status_code != 200:
            raise error_of(answer.json())
        if kind == NDJSON:
            return items_of(answer.text)
        return unpacked(msgspec.msgpack.decode(answer.content)) if kind == MSGPACK else answer


@contextmanager
def serve(
    *wrappers: type[Wrapper] | str,
    name: str | None = None,
    executor: Executor = "thread",
    timeout: float = 60.0,
    **settings: Any,
) -> Iterator[Client]:
    """Serve ``wrappers`` (classes, or what ``--plugins`` takes) and give a client for them.

    ``name`` is what the only wrapper is served as. With ``executor="thread"`` they run in threads
    of this process; ``"process"`` starts a whole instance with workers, which import the classes
    anew. ``settings`` are those of the settings file: ``models={"echo": {"slots": 2}}``. At the end
    requests in flight get ``drain_timeout`` seconds to finish, 1 unless it is set.

    Raises:
        PluginError: a wrapper cannot be imported, validated or loaded.
        NotReady: the models did not load within ``timeout`` seconds.
        ValueError: a setting is wrong, there is no wrapper, or two are called the same.
    """
    given = {"access_log": False, "drain_timeout": 1.0, "executor": executor, **settings}
    decided = msgspec.convert(given, Settings)
    chosen = [named(wrapper, name) for wrapper in wrappers]
    check(chosen, decided)
    place = in_processes if executor == "process" else in_threads
    with place(chosen, decided, timeout) as url, Client(base_url=url, trust_env=False) as client:
        yield client


class Chosen(NamedTuple):
    """One wrapper to serve: its name, and how it is found again elsewhere.

    What a loader finds has no class, and a name only where it is given one.
    """

    name: str | None
    cls: type[Wrapper] | None
    source: Source


def check(chosen: Sequence[Chosen], settings: Settings) -> None:
    """Refuse what would be served otherwise than it reads, by ValueError."""
    if not chosen:
        raise ValueError("no wrapper to serve")
    names = [each.name for each in chosen if each.name is not None]
    if twice := {each for each in names if names.count(each) > 1}:
        raise ValueError(f"two wrappers are called {', '.join(sorted(twice))}")
    if len(names) == len(chosen):  # the supervisor learns the other names, and checks then
        try:
            check_tables(settings, names)
        except PluginError as exc:
            raise ValueError(str(exc)) from exc
    for key, model in settings.models.items():
        if model.executor not in (None, settings.executor):
            raise ValueError(f"models.{key}.executor: all run as serve(executor=...) says")


@contextmanager
def in_processes(chosen: Sequence[Chosen], settings: Settings, timeout: float) -> Iterator[str]:
    """Serve as `atomserve run` does, and give the address."""
    for each in chosen:
        if "<locals>" in each.source.attribute or each.source.target == "__main__":
            raise ValueError(f"{each.name}: no other process can import {each.source.attribute}")
    sources = [msgspec.structs.replace(each.source, name=each.name) for each in chosen]
    with running(msgspec.structs.replace(settings, port=0), sources, timeout=timeout) as url:
        yield url


@contextmanager
def in_threads(chosen: Sequence[Chosen], decided: Settings, timeout: float) -> Iterator[str]:
    """Serve in this process, and give the address."""
    app = App(decided, expected=len(chosen))
    for name, cls, source in chosen:
        if cls is None or name is None:
            raise ValueError(f'{source}: runs in a process of its own: executor="process"')
        app.add(name, thread_backend(prepare_class(cls, name, decided)))
    listeners = listen(decided.host, 0, processes=1)
    failure: BaseException | None = None
    try:
        # Hypercorn closes the sockets that it is given.
        fds = [os.dup(sock.fileno()) for sock in listeners.groups[0]]
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(served(app, decided, fds, timeout)),
        ):
            try:
                yield f"http://{listeners.places[0]}"
            except BaseException as exc:  # noqa: BLE001 - raised below, outside of task groups
                failure = exc
    except ExceptionGroup as group:
        raise bare(group) from None
    finally:
        listeners.close()
    if failure is not None:
        raise failure


@asynccontextmanager
async def served(
    app: App, settings: Settings, fds: Sequence[int], timeout: float
) -> AsyncIterator[None]:
    """Serve ``app`` once it is ready, until the end of the block."""
    lifespan = Lifespan(app)
    serving, closing, closed = anyio.Event(), anyio.Event(), anyio.Event()

    async def http() -> None:
        try:
            await serve_hypercorn(lifespan, settings, fds, serving=serving, stop=closing)
        except Exception:
            if not closing.is_set():  # Hypercorn stumbles over its own cancellation
                raise
        finally:
            closed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        await lifespan.started.wait()
        try:
            await loaded(app, timeout)
            async with anyio.create_task_group() as connections:
                connections.start_soon(http)
                await serving.wait()
                try:
                    yield
                finally:
                    with anyio.CancelScope(shield=True):
                        closing.set()
                        await drain(app, settings.drain_timeout)
                        with anyio.move_on_after(LINGER):
                            await closed.wait()
                    connections.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await lifespan.shut_down()


async def loaded(app: App, timeout: float) -> None:
    """Return when every model is ready, bounded by ``timeout`` seconds."""
    changed = anyio.Event()
    app.watch(lambda *_: changed.set())
    with anyio.move_on_after(timeout):
        while not app.ready:
            for state, detail in app.engine.states().values():
                if state == "failed":
                    raise PluginError(detail)
            await changed.wait()
            changed = anyio.Event()
        return
    raise NotReady(f"not loaded within {timeout:g} s: {app.engine}")


async def drain(app: App, timeout: float) -> None:
    """Finish what is in flight, within ``timeout`` seconds, then refuse it."""
    app.begin_drain()
    with anyio.move_on_after(timeout):
        await app.idle()
    app.abort()
    with anyio.move_on_after(LINGER):
        await app.idle()


def named(wrapper: type[Wrapper] | str, name: str | None) -> Chosen:
    """Find a wrapper and the name that it is served under."""
    if isinstance(wrapper, str):
        (source,) = resolve(Settings(plugins=(wrapper,)), installed(), loaders())
        if source.kind == "loader":
            return Chosen(name or source.name, None, source)
        wrapper = load_class(source, base=Wrapper)
    else:
        source = Source(
            name=None,
            kind="class",
            target=wrapper.__module__,
            attribute=wrapper.__qualname__,
            spec=wrapper.__name__,
        )
    return Chosen(name or served_name(source, wrapper), wrapper, source)


def packed(value: Any) -> Any:
    """Write what msgpack does not know as the server reads it."""
    if isinstance(value, Path):
        return value.read_bytes()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        return {"dtype": value.dtype.name, "shape": value.shape, "data": plain.tobytes()}
    raise NotImplementedError(f"no input can be of type {type(value).__name__}")


def unpacked(value: Any) -> Any:
    """Return ``value`` with arrays in place of the tensors in it."""
    if isinstance(value, dict):
        if value.keys() == {"dtype", "shape", "data"}:
            return np.frombuffer(value["data"], value["dtype"]).reshape(value["shape"])
        return {key: unpacked(item) for key, item in value.items()}
    return [unpacked(item) for item in value] if isinstance(value, list) else value


def items_of(lines: str) -> list[Any]:
    """Return the answers of a stream in NDJSON; raises the error that ended it."""
    envelopes = [msgspec.json.decode(line) for line in lines.splitlines() if line]
    if envelopes and "error" in envelopes[-1]:
        raise error_of(envelopes[-1]["error"])
    return [envelope["data"] for envelope in envelopes if "data" in envelope]


def error_of(problem: dict[str, Any]) -> AtomError:
    """Return the error that the server described."""
    kind = all_errors().get(problem.get("code", ""), AtomError)
    return kind(problem.get("detail", ""))
