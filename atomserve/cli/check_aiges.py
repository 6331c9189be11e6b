"""``atomserve check`` of an AIGES wrapper: what is sent, what comes back, what is wrong with it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from atomserve.compat.aiges.loader import Loaded
    from atomserve.compat.aiges.local import Outcome, Trials

FAILED = 1


class Report(NamedTuple):
    """The trials of one wrapper, and who it is."""

    name: str
    generation: str
    path: str
    trials: Trials

    def document(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "ok": self.trials.ok,
            "name": self.name,
            "generation": self.generation,
            "path": self.path,
            "trials": [plain(outcome) for outcome in self.trials.outcomes],
            "notes": self.trials.notes,
        }


def check_aiges(path: str, *, modes: Sequence[str], as_json: bool) -> int:
    """Try the wrapper at ``path`` and tell what happened; 0 if it may be served.

    Raises `PluginError` if it cannot be imported or made.
    """
    from atomserve.compat.aiges.loader import loaded

    with loaded(path) as found:
        if as_json:
            with redirect_stdout(sys.stderr):  # whatever the wrapper prints is no JSON
                report = tried(found, modes)
        else:
            report = tried(found, modes)
    if as_json:
        print(json.dumps(report.document(), indent=2, ensure_ascii=False))
    else:
        show(report)
    code = 0 if report.trials.ok else FAILED
    leave_threads(code)
    return code


def tried(found: Loaded, modes: Sequence[str]) -> Report:
    """Make the wrapper and try it in each of ``modes``, or in all that it has.

    Raises `PluginError` if it cannot be made, or lacks a mode that is asked for.
    """
    from atomserve.compat.aiges.local import Trials, modes_of, trials
    from atomserve.errors import PluginError

    try:
        bound = found.make()
    except PluginError:
        raise
    except Exception as exc:
        raise PluginError(f"{found.path}: {type(exc).__name__}: {exc}") from exc
    own = modes_of(bound)
    missing = [mode for mode in modes if mode not in own]
    if missing:
        raise PluginError(f"{found.path}: has nothing for {missing[0]}; it has {' and '.join(own)}")
    notes = []
    config: Any = found.config.wrapper
    if not config and getattr(found.target, "config", None):
        config = found.target.config
        notes.append("wrapperInit gets the class's config here, and [wrapper] of aiges.toml there")
    done = trials(
        bound, found.declared, config, modes=[mode for mode in own if mode in modes] or own
    )
    notes += [
        f"{found.path.parent / 'aiges.toml'}: {key} is unknown" for key in found.config.unknown
    ]
    left = [f"{name} still runs after wrapperFini" for name in threads()]
    name, where = found.declared.service_id, found.declared.path
    return Report(name, found.generation, where, Trials(done.outcomes, notes + done.notes + left))


def threads() -> list[str]:
    """Name the threads that keep this process from ending."""
    main = threading.main_thread()
    return [each.name for each in threading.enumerate() if not each.daemon and each is not main]


def leave_threads(code: int) -> None:
    """End the process here and now if threads of the wrapper's would keep it for ever."""
    if threads():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def show(report: Report) -> None:
    """Print a table of each trial, and what was found."""
    from atomserve.cli.terminal import complain, console, table

    print(f"{report.name}: {report.generation}, POST {report.path}")
    for outcome in report.trials.outcomes:
        print(f"{outcome.mode}: {outcome.seconds * 1000:.1f} ms")
        columns = ["", "key", "type", "status", "length", "value"]
        console().print(table(columns, [*sent(outcome), *answered(outcome)]))
        for finding in outcome.findings:
            print(f"{finding}{' (served all the same)' if finding.tolerated else ''}")
    for note in report.trials.notes:
        print(f"note: {note}")
    if report.trials.ok:
        print(f"{report.name} may be served")
    for outcome in report.trials.outcomes:
        if not outcome.ok:
            complain(f"{outcome.mode}: {outcome.failure or 'breaks the rules above'}")


def sent(outcome: Outcome) -> list[list[str]]:
    """Return the rows of what the wrapper was given."""
    rows = [["param", key, "text", "", "", value] for key, value in outcome.params.items()]
    return rows + [["in", *row(node)] for node in outcome.request.list]


def answered(outcome: Outcome) -> list[list[str]]:
    """Return the rows of what came back."""
    rows = []
    for response in outcome.responses:
        if response.error_code:
            rows.append(["out", "", "error", "", "", str(response.error_code)])
        rows.extend(["out", *row(item)] for item in getattr(response, "list", ()))
    return rows


def row(piece: Any) -> list[str]:
    """Return the cells of a piece of a request or a result."""
    from atomserve.cli.terminal import brief

    told = of_piece(piece)
    return [
        told["key"],
        told["type"],
        told["status"],
        str(told["len"]),
        brief(told.get("text", "")),
    ]


def plain(outcome: Outcome) -> dict[str, Any]:
    """Return a trial as plain data."""
    return {
        "mode": outcome.mode,
        "ok": outcome.ok,
        "seconds": outcome.seconds,
        "failure": outcome.failure,
        "params": outcome.params,
        "sent": [of_piece(node) for node in outcome.request.list],
        "answers": [
            {
                "error_code": response.error_code,
                "list": [of_piece(item) for item in response.list],
            }
            for response in outcome.responses
        ],
        "findings": [finding._asdict() for finding in outcome.findings],
    }


def of_piece(piece: Any) -> dict[str, Any]:
    """Return a piece as plain data; only text comes with its content."""
    from atomserve.compat.aiges.shim.aiges.core.types import Status, Types
    from atomserve.compat.aiges.values import size, text

    kind = Types.get(piece.type, str(piece.type))
    status = Status.get(piece.status, str(piece.status))
    told = {"key": text(piece.key), "type": kind, "status": status, "len": size(piece.data)}
    if kind == "text":
        told["text"] = bytes(piece.data).decode(errors="replace")
    return told
