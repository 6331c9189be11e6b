"""``atomserve call``: send one request to a running server and show the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx2

    from atomserve.cli.answers import Shown
    from atomserve.cli.inputs import Call, Described

NDJSON = "application/x-ndjson"
JSON = "application/json"


def call(
    url: Annotated[str, typer.Argument(help="The server: http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Argument(help="The model's name.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="NAME=VALUE", help="Repeat it; NAME=@FILE reads a file."
        ),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer's JSON as it came, for programs.")
    ] = False,
    accept: Annotated[
        str, typer.Option(metavar="TYPE", help="Ask for this form of the answer.")
    ] = "",
    http2: Annotated[bool, typer.Option("--http2", help="Speak HTTP/2.")] = False,
    stream: Annotated[
        bool, typer.Option(help="Show a stream's items as they come, or together at its end.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Save the answer here.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for the next byte.")
    ] = 120.0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check the server's certificate.")
    ] = False,
) -> int:
    """Send one request to a running server and show the answer.

    Try:

    - `atomserve call http://127.0.0.1:8000 ocr --input image=@page.png`
    - `atomserve call http://127.0.0.1:8000 echo -i text=hello -i number=2 --json`
    """
    from atomserve.cli.answers import CallFailed, Shown
    from atomserve.cli.connecting import connected
    from atomserve.cli.inputs import build
    from atomserve.cli.terminal import complain

    try:
        with connected(url, timeout=timeout, insecure=insecure, http2=http2) as client:
            described = describe(client, model)
            wanted = accept or choose(described, as_json=as_json)
            media_type = described.output.media_type if described.output.is_bytes else ""
            shown = Shown(as_json=as_json, live=stream, output=output, media_type=media_type)
            send(client, model, build(described, inputs or []), wanted, shown)
    except CallFailed as exc:
        complain(str(exc))
        return 1
    return 0


def describe(client: httpx2.Client, model: str) -> Described:
    """Ask the server what ``model`` takes."""
    import msgspec

    from atomserve.cli.answers import CallFailed, problem_of
    from atomserve.cli.inputs import Described

    answer = client.get(f"v1/models/{model}")
    if answer.status_code != 200:
        raise problem_of(answer)
    try:
        document = msgspec.json.decode(answer.content)
        return msgspec.convert(document.get("signature", document), Described)
    except (msgspec.MsgspecError, AttributeError) as exc:
        raise CallFailed(
            f"{client.base_url}: does not describe {model!r} as atomserve does"
        ) from exc


def choose(described: Described, *, as_json: bool) -> str:
    """Return the form to ask for: what shows best, or JSON."""
    if described.streams:
        return NDJSON
    return JSON if as_json or described.output.kind in ("json", "text") else "*/*"


def send(client: httpx2.Client, model: str, request: Call, accept: str, shown: Shown) -> None:
    """Send the request and show its answer.

    Raises:
        CallFailed: the server refused, or the model failed.
    """
    from atomserve.cli.answers import problem_of, show_answer, show_lines

    arguments: dict[str, Any] = {"content": request.content}
    if request.files is not None:
        arguments = {"files": request.files}
    headers = {**request.headers, "Accept": accept}
    path = f"v1/models/{model}/predict"
    with client.stream("POST", path, params=request.params, headers=headers, **arguments) as answer:
        if answer.status_code != 200:
            raise problem_of(answer)
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind == NDJSON:
            show_lines(answer, shown)
        elif kind == "text/event-stream":
            for line in answer.iter_lines():
                print(line, flush=True)
        else:
            answer.read()
            show_answer(answer, shown)
