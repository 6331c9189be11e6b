"""Run a wrapper on its own test values, along the path of production."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.checks import Finding, check_resp
from atomserve.compat.aiges.configuration import texts
from atomserve.compat.aiges.declared import Declared, declared
from atomserve.compat.aiges.exchanges import (
    NOTHING,
    Given,
    Mode,
    ask_in_session,
    ask_later,
    ask_once,
    local_results,
    sample_params,
    sample_request,
)
from atomserve.compat.aiges.one_thread import FAILURES, OneThread
from atomserve.compat.aiges.shim.aiges.dto import DataListCls, Response

_log = logging.getLogger("aiges")
_FINI_PATIENCE = 10.0

verdicts: list[bool] = []
"""Whether each `run` of this process went well, for whoever ran the script that called it."""


class Outcome(NamedTuple):
    """What a local run sent, what came back, and what is wrong with it."""

    params: dict[str, str]
    request: DataListCls
    responses: list[Response]
    findings: list[Finding]
    failure: str = ""
    mode: Mode = "once"
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong but what is served all the same."""
        return not self.failure and all(finding.tolerated for finding in self.findings)


class Trials(NamedTuple):
    """The local runs of one wrapper, between its Init and its Fini."""

    outcomes: list[Outcome]
    notes: list[str]
    """What is odd, but keeps no request from being served."""

    @property
    def ok(self) -> bool:
        """Whether every run went well."""
        return all(outcome.ok for outcome in self.outcomes)


def run(wrapper: Any, *, stream: bool = False) -> Outcome:
    """Try ``wrapper`` on its fields' test values, log the outcome, and add it to `verdicts`."""
    outcome = trial(Bound(wrapper), declared(wrapper), wrapper.config, stream=stream)
    for finding in outcome.findings:
        _log.warning("%s", finding)
    if outcome.ok:
        _log.info("the wrapper has been verified")
    else:
        _log.error("the wrapper is not right: %s", outcome.failure or "see above")
    verdicts.append(outcome.ok)
    return outcome


def trial(
    bound: Bound,
    wrapper: Declared,
    config: Any,
    *,
    stream: bool = False,
    patience: float = 60.0,
) -> Outcome:
    """Initialise a wrapper, run one request or session, and let it finish."""
    mode: Mode = "stream" if stream else "once" if bound.has("once") else "async"
    return trials(bound, wrapper, config, modes=[mode], patience=patience).outcomes[0]


def modes_of(bound: Bound) -> list[Mode]:
    """Return the ways in which a wrapper can be asked."""
    needs: dict[Mode, tuple[str, ...]] = {
        "once": ("once",),
        "async": ("once_async",),
        "stream": ("create", "write"),
    }
    return [mode for mode, methods in needs.items() if all(map(bound.has, methods))]


def trials(
    bound: Bound,
    wrapper: Declared,
    config: Any,
    *,
    modes: Sequence[Mode],
    patience: float = 60.0,
    given: Given = NOTHING,
) -> Trials:
    """Initialise a wrapper, run one request in each of ``modes``, and let it finish.

    Parameters are text, and one thread calls it that is not the main one, as in production.
    ``patience`` bounds the wait for each result.
    """
    with closing(OneThread()) as thread:
        failure = _initialised(thread, bound, texts(config))
        if failure:
            params, request = sample_params(wrapper, given), sample_request(wrapper, given)
            return Trials([Outcome(params, request, [], [], failure, modes[0])], [])
        outcomes = []
        for mode in modes:
            params, request = sample_params(wrapper, given), sample_request(wrapper, given)
            outcome = Outcome(params, request, [], [], mode=mode)
            outcomes.append(_tried(thread, bound, wrapper, outcome, patience))
            if thread.stuck:
                return Trials(outcomes, ["fini: not called, the wrapper has not come back"])
        return Trials(outcomes, _finished(thread, bound, min(patience, _FINI_PATIENCE)))


def _initialised(thread: OneThread, bound: Bound, config: dict[str, str]) -> str:
    """Initialise the wrapper; return what went wrong."""
    try:
        code = thread.call(lambda: bound.init(config))
    except FAILURES as exc:
        _log.error("the wrapper failed", exc_info=exc)
        return f"init: {type(exc).__name__}: {exc}"
    return f"init: {bound.message(code)}" if code else ""


def _finished(thread: OneThread, bound: Bound, patience: float) -> list[str]:
    """Let the wrapper finish, for a bounded time; return what went wrong."""
    try:
        code = thread.call(bound.fini, patience)
    except FAILURES as exc:
        if thread.stuck:
            return [f"fini: {exc}"]
        _log.error("the wrapper failed", exc_info=exc)
        return [f"fini: {type(exc).__name__}: {exc}"]
    return [f"fini: {bound.message(code)}"] if code else []


def _tried(
    thread: OneThread, bound: Bound, wrapper: Declared, outcome: Outcome, patience: float
) -> Outcome:
    responses, asked = outcome.responses, (bound, dict(outcome.params), outcome.request)

    def exchange(results: queue.Queue[Any]) -> None:
        if outcome.mode == "once":
            responses.append(ask_once(*asked))
        else:
            ask = ask_in_session if outcome.mode == "stream" else ask_later
            responses.extend(ask(*asked, results=results, patience=patience))

    start = time.perf_counter()
    try:
        with local_results() as results:
            # Whoever waits for a result inside has the word: it can say which.
            thread.call(lambda: exchange(results), patience + 1, progress=lambda: len(responses))
    except FAILURES as exc:
        _log.error("the wrapper failed", exc_info=exc)
        outcome = outcome._replace(failure=f"{type(exc).__name__}: {exc}")
    else:
        outcome = _judged(bound, wrapper, outcome)
    return outcome._replace(seconds=time.perf_counter() - start)


def _judged(bound: Bound, wrapper: Declared, outcome: Outcome) -> Outcome:
    for response in outcome.responses:
        if response.error_code:
            return outcome._replace(failure=bound.message(response.error_code))
        found = check_resp(response, wrapper.fields.accepts)
        # In a stream, pieces have the statuses 0, 1 and 2.
        streams = outcome.mode == "stream" or len(outcome.responses) > 1
        outcome.findings.extend(item for item in found if not (streams and item.rule == 7))
    return outcome
