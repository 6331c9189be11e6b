"""``atomserve status``: show how a running server's processes, models and slots are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx2

    from atomserve.telemetry.instance import RegistrationReport
    from atomserve.telemetry.status import ApiStatus, AppStatus, ModelStatus, SlotStatus, Status

EVERY = 2.0
"""Seconds between two looks of ``--watch``."""
PATIENCE = 5.0
CLEAR = "\x1b[H\x1b[2J"


def status(
    url: Annotated[
        str, typer.Argument(help="The server, with its prefix if it has one.")
    ] = "http://127.0.0.1:8000",
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's JSON, one line for each look.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check the server's certificate.")
    ] = False,
) -> int:
    """Show how a running server's processes, models and slots are.

    Try:

    - `atomserve status`
    - `atomserve status http://127.0.0.1:8000 --watch`
    - `atomserve status --json | jq .models`
    """
    from atomserve.cli.answers import CallFailed
    from atomserve.cli.connecting import connected
    from atomserve.cli.terminal import complain

    try:
        with connected(url, timeout=PATIENCE, connect=PATIENCE, insecure=insecure) as client:
            look(client, as_json=as_json, again=watch)
            while watch:
                time.sleep(EVERY)
                look(client, as_json=as_json, again=watch)
    except CallFailed as exc:
        complain(str(exc))
        return 1
    return 0


def look(client: httpx2.Client, *, as_json: bool, again: bool) -> None:
    """Ask once and show what the server says.

    Raises:
        CallFailed: it is no server of ours, or refused.
    """
    import msgspec

    from atomserve.cli.answers import CallFailed, problem_of
    from atomserve.telemetry.status import Status

    answer = client.get("v1/status")
    if answer.status_code != 200:
        raise problem_of(answer)
    try:
        found = msgspec.json.decode(answer.content, type=Status)
    except msgspec.DecodeError as exc:
        raise CallFailed(f"{client.base_url}: does not tell its state as atomserve does") from exc
    if as_json:
        print(answer.text, flush=True)
        return
    from atomserve.cli.terminal import console

    screen = console()
    if again:
        print(CLEAR if screen.is_terminal else "", flush=True)
    print(headline(found))
    if found.registration is not None:
        print(registered(found.registration))
    screen.print(api_table(found.api_processes))
    for name, app in found.apps.items():
        print(f"\n{about_app(name, app, len(found.api_processes))}")
    for name, model in found.models.items():
        print(f"\n{about(name, model)}")
        if model.slots:
            screen.print(slot_table(model))


def headline(status: Status) -> str:
    words = ["ready" if status.ready else "not ready"]
    if (supervisor := status.supervisor) is not None:
        words.append(f"up {lasting(supervisor.uptime)}")
        words.append(f"supervisor {supervisor.pid} ({size(supervisor.rss)})")
    if status.partial:
        words.append("not every process answered")
    return ", ".join(words)


def registered(report: RegistrationReport) -> str:
    """Say how far the control plane knows of the instance."""
    trouble = f" ({report.detail})" if report.detail else ""
    where = f" at {report.url}" if report.url else ""
    return f"{report.registrar}: {report.state}{trouble}, as {report.instance}{where}"


def about(name: str, model: ModelStatus) -> str:
    """Say of a model what is not about one slot."""
    words = [
        f"{name}: {model.state}{f' ({model.detail})' if model.detail else ''}",
        f"{model.queue.waiting} of {model.queue.size} waiting",
        f"{model.running} running",
    ]
    if model.arena_bytes:
        words.append(f"{size(model.arena_bytes)} of bodies")
    causes = [f"{count} {cause}" for cause, count in sorted(model.restarts.items())]
    return ", ".join([*words, *(["replaced: " + ", ".join(causes)] if causes else [])])


def about_app(name: str, app: AppStatus, processes: int) -> str:
    """Say how a hosted app is."""
    state = f"{app.state}{f' ({app.detail})' if app.detail else ''}"
    return f"{name}: {state}, in {app.ready} of {processes} API processes"


def api_table(processes: list[ApiStatus]) -> Any:
    from atomserve.cli.terminal import table

    columns = ["API process", "pid", "state", "in flight", "restarts", "memory"]
    rows = [
        [
            shown(api.index),
            str(api.pid),
            "ready" if api.ready else "not ready",
            shown(api.in_flight),
            shown(api.restarts),
            size(api.rss),
        ]
        for api in processes
    ]
    return table(columns, rows)


def slot_table(model: ModelStatus) -> Any:
    from atomserve.cli.terminal import table

    columns = ["slot", "pid", "state", "busy", "requests", "restarts", "memory", "arena"]
    return table(columns, [slot_row(slot, model.capacity) for slot in model.slots])


def slot_row(slot: SlotStatus, capacity: int) -> list[str]:
    return [
        "spare" if slot.slot is None else str(slot.slot),
        shown(slot.pid),
        slot.state,
        "-" if slot.busy is None else f"{slot.busy} of {capacity}",
        shown(slot.requests),
        shown(slot.restarts),
        size(slot.rss),
        size(slot.arena_bytes),
    ]


def shown(value: int | None) -> str:
    return "-" if value is None else str(value)


def size(value: int | None) -> str:
    """Write bytes so that sizes compare at a glance."""
    if value is None:
        return "-"
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def lasting(seconds: float) -> str:
    """Write a duration in its two largest units."""
    parts: list[str] = []
    left = int(seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (parts and unit != "s") or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
