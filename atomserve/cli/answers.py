"""Show a server's answer: to people in a form to read, to programs as it came."""

from __future__ import annotations

import io
import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from atomserve.cli.terminal import show, show_picture
from atomserve.errors import AtomError, Fault

if TYPE_CHECKING:
    import httpx2

MSGPACK = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is shown."""

    as_json: bool = False
    live: bool = True
    """A stream's items as they come, not together at its end."""
    output: Path | None = None
    """The file that the answer goes to; a stream's media go to numbered ones beside it."""
    media_type: str = ""
    """Of a stream's items that are media."""


class CallFailed(AtomError):
    """The server answered with a problem."""

    code = "call_failed"


class Problem(msgspec.Struct):
    """What we read of problem details (RFC 9457)."""

    detail: str
    errors: tuple[Fault, ...] = ()


def problem_of(answer: httpx2.Response) -> CallFailed:
    """Describe a failed answer in one line."""
    try:
        problem = msgspec.json.decode(answer.read(), type=Problem)
    except msgspec.DecodeError:
        problem = Problem(detail=answer.reason_phrase or "no answer of ours")
    faults = "; ".join(f"{fault.path}: {fault.message}" for fault in problem.errors)
    return CallFailed(f"{problem.detail} ({answer.status_code}){': ' if faults else ''}{faults}")


def show_answer(answer: httpx2.Response, shown: Shown) -> None:
    """Print an answer, or what it is and where it was saved."""
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    data, output = answer.content, shown.output
    if shown.as_json:
        if output is None:
            sys.stdout.buffer.write(data + b"\n" * (media_type == "application/json"))
        else:
            save(output, data)
    elif media_type == "application/json" or media_type.endswith("+json"):
        text = json.dumps(json.loads(data), indent=2, ensure_ascii=False)
        if output is None:
            show(json.loads(data))
        else:
            save(output, f"{text}\n".encode())
    elif media_type.startswith("text/"):
        print(answer.text)
    else:
        show_bytes(media_type, data, output)


def show_bytes(media_type: str, data: bytes, output: Path | None) -> None:
    """Say what a medium is, and save it if there is a file for it."""
    about = [media_type or "no type", f"{len(data):,} bytes", *details(media_type, data)]
    print(", ".join(about))
    if output is not None:
        save(output, data)


def details(media_type: str, data: bytes) -> list[str]:
    """Say what is inside."""
    if media_type.startswith("image/"):
        return list(filter(None, [show_picture(data)]))
    if media_type == "application/x-npy":
        import numpy as np

        array = np.load(io.BytesIO(data), allow_pickle=False)
        shown = np.array2string(array, threshold=40, precision=4)
        shape = "x".join(map(str, array.shape)) or "one number"
        return [f"{array.dtype} {shape}\n{shown}"]
    if media_type in MSGPACK:
        return [f"\n{msgspec.msgpack.decode(data)}"]
    return []


def save(output: Path, data: bytes) -> None:
    output.write_bytes(data)
    print(f"saved {output}, {len(data):,} bytes", file=sys.stderr)


def numbered(shown: Shown, number: int) -> Path | None:
    """Return the file for a medium of a stream."""
    output = shown.output
    return output and output.with_name(f"{output.stem}-{number}{output.suffix}")


def show_lines(answer: httpx2.Response, shown: Shown) -> None:
    """Print the items of an NDJSON stream as they arrive, or together at its end.

    Raises:
        CallFailed: the stream ended with an error, or without its end.
    """
    items: list[Any] = []
    media = 0
    for line in filter(None, answer.iter_lines()):
        envelope = json.loads(line)
        if shown.as_json:
            print(line, flush=True)
        elif shown.media_type and isinstance(envelope.get("data"), str):
            media += 1
            show_bytes(shown.media_type, b64decode(envelope["data"]), numbered(shown, media))
            sys.stdout.flush()
        elif "data" in envelope and shown.live:
            show(envelope["data"])
            sys.stdout.flush()
        elif "data" in envelope:
            items.append(envelope["data"])
        if "error" in envelope:
            raise CallFailed(str(envelope["error"].get("detail", "the model failed")))
        if "end" in envelope:
            if items:
                show(items)
            return
    raise CallFailed("the stream broke off before its end")
