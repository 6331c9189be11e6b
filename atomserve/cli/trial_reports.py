"""The trials of an AIGES wrapper as tables for people, and as plain data for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from atomserve.compat.aiges.local import Outcome, Trials


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
