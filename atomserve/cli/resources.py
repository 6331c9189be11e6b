"""``atomserve resources``: have a running server's models load, unload and list resources."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx2

    from atomserve.telemetry.resources import CopyStatus

PATIENCE = 600.0
"""Seconds to wait for the server: it bounds how long its workers may take."""

resources = typer.Typer(help="Have a running server's models load resources beside their wrappers.")

Admin = Annotated[
    str,
    typer.Option(
        "--admin",
        envvar="ATOMSERVE_ADMIN",
        metavar="ADDRESS",
        help="Where the server listens to administrators: unix:PATH or HOST:PORT.",
    ),
]
Model = Annotated[str, typer.Argument(help="The model's name.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What requests will call it by.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's JSON.")]


@resources.command()
def load(
    model: Model,
    name: Name,
    files: Annotated[
        list[str], typer.Argument(metavar="[KEY=]FILE...", help="KEY is the file's name if unset.")
    ],
    *,
    admin: Admin,
    as_json: AsJson = False,
) -> int:
    """Have every worker of a model load a resource, those that start later included.

    Try:

    - `atomserve resources load ocr 7 lora=weights.bin --admin unix:admin.sock`
    """

    def send(client: httpx2.Client) -> httpx2.Response:
        with ExitStack() as opened:
            parts = [part_of(each, opened) for each in files]
            return client.put(place(model, name), files=parts)

    return order(admin, send, show_outcome, as_json=as_json)


@resources.command()
def unload(model: Model, name: Name, *, admin: Admin, as_json: AsJson = False) -> int:
    """Have every worker of a model forget a resource.

    Try:

    - `atomserve resources unload ocr 7 --admin unix:admin.sock`
    """

    def send(client: httpx2.Client) -> httpx2.Response:
        return client.delete(place(model, name))

    return order(admin, send, show_outcome, as_json=as_json)


@resources.command("list")
def list_all(*, admin: Admin, as_json: AsJson = False) -> int:
    """Show which resources the models have loaded.

    Try:

    - `atomserve resources list --admin unix:admin.sock`
    """

    def send(client: httpx2.Client) -> httpx2.Response:
        return client.get("admin/v1/resources")

    return order(admin, send, show_list, as_json=as_json)


def order(
    admin: str,
    send: Callable[[httpx2.Client], httpx2.Response],
    show: Callable[[bytes], None],
    *,
    as_json: bool,
) -> int:
    """Send an order, and show what became of it; 1 if it was not carried out."""
    from atomserve.cli.answers import CallFailed, problem_of
    from atomserve.cli.connecting import connected
    from atomserve.cli.terminal import complain

    try:
        with connected(admin, timeout=PATIENCE) as client:
            answer = send(client)
            if answer.headers.get("content-type") != "application/json":
                raise problem_of(answer)
    except (CallFailed, OSError) as exc:
        complain(str(exc))
        return 1
    if as_json:
        print(answer.text)
    else:
        show(answer.content)
    return 0 if answer.status_code == 200 else 1


def place(model: str, name: str) -> str:
    """Return the path of a resource."""
    from urllib.parse import quote

    return f"admin/v1/models/{quote(model, safe='')}/resources/{quote(name, safe='')}"


def part_of(text: str, opened: ExitStack) -> tuple[str, tuple[str, Any, str]]:
    """Return the part of a form that ``[KEY=]FILE`` stands for."""
    import mimetypes

    key, given, path = text.partition("=")
    file = Path(path if given else key)
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return (key if given else file.name, (file.name, opened.enter_context(file.open("rb")), kind))


def show_outcome(document: bytes) -> None:
    """Print what became of an order in each slot."""
    import msgspec

    from atomserve.telemetry.resources import Outcome

    found = msgspec.json.decode(document, type=Outcome)
    print(f"{found.model}, resource {found.resource}: {'done' if found.done else 'not done'}")
    _print(["slot", "pid", "state", "detail"], map(_row, found.slots))


def show_list(document: bytes) -> None:
    """Print which resources there are."""
    import msgspec

    from atomserve.cli.status import size
    from atomserve.telemetry.resources import ResourceList

    found = msgspec.json.decode(document, type=ResourceList)
    rows = [
        [
            model,
            held.resource,
            "unloading" if held.unloading else "loaded",
            size(held.size),
            ", ".join("spare" if row.slot is None else str(row.slot) for row in held.slots),
        ]
        for model, all_held in found.models.items()
        for held in all_held
    ]
    _print(["model", "resource", "state", "size", "slots"], rows)


def _row(copy: CopyStatus) -> list[str]:
    from atomserve.cli.status import shown

    slot = "spare" if copy.slot is None else str(copy.slot)
    return [slot, shown(copy.pid), copy.state, copy.detail]


def _print(columns: list[str], rows: Iterable[list[str]]) -> None:
    from atomserve.cli.terminal import console, table

    console().print(table(columns, list(rows)))
