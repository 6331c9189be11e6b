"""Figures of wrappers: from any thread, bounded, and kept when their worker ends."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import msgspec

from atomserve.compat.aiges.figures import LARGEST, MOST_KEYS, Figures
from atomserve.compat.aiges.routing import Routes
from atomserve.supervisor.figures import Figures as Known
from atomserve.telemetry.counters import MOST, OTHER, Snapshot
from atomserve.telemetry.instance import WorkerDocument


def values(snapshot: Snapshot) -> dict[str, float]:
    return {point.labels[1]: point.value for point in snapshot.points}


def said(figures: Figures) -> msgspec.Raw:
    document = WorkerDocument(requests=0, busy=0, answer_bytes=0, families=[figures.snapshot()])
    return msgspec.Raw(msgspec.json.encode(document))


def test_many_threads_lose_no_count() -> None:
    figures = Figures("llm")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: figures.add("tokens", 2), range(2000)))
    assert values(figures.snapshot()) == {"tokens": 4000}


def test_keys_beyond_the_bound_are_counted_together() -> None:
    figures = Figures("llm")
    for number in range(MOST_KEYS + 7):
        figures.add(f"key-{number}", 1)
    found = values(figures.snapshot())
    assert len(found) == MOST_KEYS + 1
    assert found[OTHER] == 7


def test_a_count_that_is_none_harms_nothing() -> None:
    figures = Figures("llm")
    figures.add("back", -5)
    figures.add("huge", 10**400)
    figures.add("\ud800" * 500, 1)
    found = values(msgspec.json.decode(said(figures), type=WorkerDocument).families[0])
    assert found["back"] == 0
    assert found["huge"] == LARGEST
    assert len(found) == 3


def test_a_figure_of_a_session_that_is_over_still_counts() -> None:
    figures, routes = Figures("llm"), Routes()
    routes.unclaimed = figures.add
    assert routes.metric("gone", b"tokens", "5") == 0
    assert routes.metric("gone", "tokens", "many") == 0
    assert values(figures.snapshot()) == {"tokens": 5}


def test_a_forked_process_has_no_session_to_call_back_to() -> None:
    code = (
        "import os\n"
        "from atomserve.compat.aiges.routing import ROUTES\n"
        "ROUTES.open(lambda response: True, 'sid')\n"
        "with ROUTES._lock:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(ROUTES.callback(object(), 'sid') + 8)\n"
        "assert ROUTES.callback(object(), 'sid') == 0\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=15)


def test_a_worker_that_ends_or_is_silent_takes_no_figure_along() -> None:
    figures, known = Figures("llm"), Known()
    figures.add("tokens", 3)
    known.hear({"first": said(figures)}, {"first"})
    known.hear({}, {"first"})
    assert values(known.total()[0]) == {"tokens": 3}
    known.hear({"second": said(figures)}, {"second"})
    assert values(known.total()[0]) == {"tokens": 6}


def test_keys_of_ever_new_workers_are_bounded() -> None:
    known = Known()
    for worker in range(6):
        figures = Figures("llm")
        for number in range(MOST_KEYS):
            figures.add(f"{worker}-{number}", 1)
        known.hear({worker: said(figures)}, {worker})
    found = values(known.total()[0])
    assert len(found) == MOST + 1
    assert sum(found.values()) == 6 * MOST_KEYS


def test_what_is_no_document_is_no_figure() -> None:
    known = Known()
    known.hear({"first": msgspec.Raw(json.dumps([1]).encode())}, {"first"})
    assert known.total() == []
