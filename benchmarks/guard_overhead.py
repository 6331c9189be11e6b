"""What the guard, its access log and counters cost a tiny request, in process and over Hypercorn.

    python benchmarks/guard_overhead.py [--rounds 5] [--seconds 3]

Rounds of the variants alternate, so that a busy machine slows all of them; ratios are what counts.
The server's CPU time per request is the steadier figure where other work shares the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import hypercorn.asyncio
import uvloop
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from atomserve.guard.guard import Guard
from atomserve.settings import Limits
from atomserve.telemetry.counters import Registry
from atomserve.telemetry.logs import AccessLog
from atomserve.telemetry.requests import RequestCounts
from atomserve.telemetry.sink import Sink

BODY = b'{"text": "hello you"}'
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"bench"),
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
]
VARIANTS = ("bare", "guard", "guard+log", "guard+log+counts")


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")


def build(variant: str) -> ASGIApp:
    app = Starlette(routes=[Route("/echo", echo, methods=["POST"])])
    if variant == "bare":
        return app
    log = None
    if variant.startswith("guard+log"):
        with tempfile.TemporaryFile() as file:
            log = AccessLog(Sink(os.dup(file.fileno())))
    counts = RequestCounts(Registry()) if variant.endswith("+counts") else None
    return Guard(app, limits=Limits(), access=log, counts=counts)


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.1"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/echo",
        "raw_path": b"/echo",
        "query_string": b"",
        "root_path": "",
        "headers": list(HEADERS),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }


async def discard(message: Message) -> None: ...


async def call(app: ASGIApp) -> None:
    queue: asyncio.Queue[Message] = asyncio.Queue(10)
    queue.put_nowait({"type": "http.request", "body": BODY, "more_body": True})
    queue.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    await app(scope(), queue.get, discard)


async def cost(run: Callable[[], Awaitable[None]], count: int = 3000) -> float:
    """Return the microseconds that one ``run`` takes."""
    began = time.perf_counter()
    for number in range(count):
        await run()
        if number % 64 == 0:
            await asyncio.sleep(0)
    return (time.perf_counter() - began) / count * 1e6


async def in_process(rounds: int) -> None:
    apps = {variant: build(variant) for variant in VARIANTS}
    best = dict.fromkeys(VARIANTS, float("inf"))
    async with AsyncExitStack() as stack:
        for variant in VARIANTS[1:]:
            await stack.enter_async_context(apps[variant])  # type: ignore[arg-type]
        for _ in range(rounds * 4):
            for variant, app in apps.items():
                best[variant] = min(best[variant], await cost(lambda app=app: call(app)))  # type: ignore[misc]
    bare = best["bare"]
    for variant, microseconds in best.items():
        print(f"in-process {variant:16} {microseconds:6.1f} us  +{microseconds - bare:4.1f} us")


async def scoped(wait: Callable[[], Awaitable[None]]) -> None:
    with anyio.move_on_after(30):
        await wait()


async def timed(wait: Callable[[], Awaitable[None]]) -> None:
    timer = asyncio.get_running_loop().call_later(30, print)
    await wait()
    timer.cancel()


async def noted(wait: Callable[[], Awaitable[None]]) -> None:
    task, began = asyncio.current_task(), time.monotonic()
    await wait()
    assert task is not None and began


async def slept(event: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(event.wait)
        event.set()


async def nothing() -> None: ...


async def bounding(rounds: int) -> None:
    """Compare ways to bound one wait: why exchange.py and telemetry.py speak to asyncio itself."""
    ways = {
        "cancel scope": lambda: scoped(nothing),
        "own timer": lambda: timed(nothing),
        "noted for a shared timer": lambda: noted(nothing),
        "a task": lambda: slept(anyio.Event()),
    }
    plain = min([await cost(nothing) for _ in range(rounds)])
    for name, way in ways.items():
        best = min([await cost(way) for _ in range(rounds)])
        print(f"bound a wait by {name:24} +{best - plain:5.2f} us")


def serve(variant: str, fd: int) -> None:
    config = Config()
    config.bind = [f"fd://{fd}"]
    config.accesslog = config.errorlog = None
    uvloop.run(hypercorn.asyncio.serve(build(variant), config, mode="asgi"))  # type: ignore[arg-type]


def over_http(rounds: int, seconds: int) -> None:
    if shutil.which("wrk") is None:
        print("over Hypercorn: skipped, needs the Debian package wrk")
        return
    servers: dict[str, subprocess.Popen[bytes]] = {}
    ports: dict[str, int] = {}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            'wrk.method="POST"\nwrk.headers["content-type"]="application/json"\n'
            f"wrk.body='{BODY.decode()}'\n"
        )
        script.flush()
        try:
            for variant in VARIANTS:
                listener = socket.create_server(("127.0.0.1", 0))
                ports[variant] = listener.getsockname()[1]
                fd = listener.fileno()
                command = [sys.executable, __file__, "--serve", variant, "--fd", str(fd)]
                servers[variant] = subprocess.Popen(command, pass_fds=[fd])
                listener.close()
            rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
            costs: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
            for variant in VARIANTS:
                load(ports[variant], script.name, 1)
            for _ in range(rounds):
                for variant in VARIANTS:
                    before = cpu_time(servers[variant].pid)
                    rate = load(ports[variant], script.name, seconds)
                    spent = cpu_time(servers[variant].pid) - before
                    rates[variant].append(rate)
                    costs[variant].append(spent / (rate * seconds) * 1e6)
        finally:
            for server in servers.values():
                server.terminate()
                server.wait(10)
    for variant in VARIANTS:
        shares = [one / bare for one, bare in zip(rates[variant], rates["bare"], strict=True)]
        rate, share = statistics.median(rates[variant]), statistics.median(shares)
        extra = min(costs[variant]) - min(costs["bare"])
        print(
            f"hypercorn  {variant:16} {rate:6.0f} req/s  {share:6.1%} of bare"
            f"  {min(costs[variant]):5.0f} us CPU  +{extra:.1f} us"
        )


def cpu_time(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def load(port: int, script: str, seconds: int) -> float:
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", script]
    url = f"http://127.0.0.1:{port}/echo"
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(out)
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert found is not None, out
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve, given.fd)
    uvloop.run(in_process(given.rounds))
    uvloop.run(bounding(given.rounds))
    over_http(given.rounds, given.seconds)
    return None


if __name__ == "__main__":
    main()
