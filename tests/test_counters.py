"""Counters of several processes add up to what one process would have counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from atomserve.telemetry.counters import OTHER, Point, Registry, Snapshot, merge
from atomserve.telemetry.exposition import OPENMETRICS, TEXT, write
from atomserve.telemetry.instance import PATIENCE, Instance
from atomserve.telemetry.requests import RequestCounts

BOUNDS = (1, 5, 25)

# One thing that happens: where it is counted, under which label, how much.
EVENTS = st.lists(
    st.tuples(st.sampled_from(["jobs", "sizes"]), st.sampled_from("abc"), st.integers(0, 50))
)

# Prometheus takes any, but the parser splits lines where Python does.
PRINTABLE = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])


def counted(events: Iterable[tuple[str, str, int]], *, most: int = 300) -> list[Snapshot]:
    registry = Registry(most=most)
    jobs = registry.counter("jobs_total", "Jobs.", "model")
    sizes = registry.histogram("sizes", "Sizes.", "model", bounds=BOUNDS)
    for kind, model, amount in events:
        if kind == "jobs":
            jobs.child(model).add(amount)
        else:
            sizes.child(model).observe(amount)
    return registry.snapshot()


def rows(snapshots: Sequence[Snapshot]) -> dict[str, set[Point]]:
    return {family.name: set(family.points) for family in snapshots}


@given(st.lists(EVENTS, max_size=5))
def test_processes_add_up_to_one_that_has_counted_all(processes: list[list]) -> None:
    together = [event for events in processes for event in events]
    parts = [counted(events) for events in processes]
    assert rows(merge([counted([]), *parts])) == rows(counted(together))
    assert rows(merge([*reversed(parts), counted([])])) == rows(counted(together))
    assert rows(merge([merge([counted([]), *parts[:2]]), *parts[2:]])) == rows(counted(together))


@given(EVENTS)
def test_a_snapshot_survives_its_way_to_another_process(events: list) -> None:
    found = counted(events)
    assert msgspec.json.decode(msgspec.json.encode(found), type=list[Snapshot]) == found


@given(EVENTS, st.integers(1, 2))
def test_what_is_over_the_bound_is_counted_together(events: list, most: int) -> None:
    bounded = counted(events, most=most)
    for family, whole in zip(bounded, counted(events), strict=True):
        assert len(family.points) <= most + 1
        assert sum(point.value for point in family.points) == sum(
            point.value for point in whole.points
        )
        others = [point for point in family.points if point.labels == (OTHER,)]
        assert bool(others) == (len(whole.points) > most)


def test_a_bucket_includes_its_bound() -> None:
    (_, sizes) = counted([("sizes", "a", size) for size in (0, 1, 2, 25, 26)])
    assert sizes.points == (Point(("a",), 54, (2, 1, 1, 1)),)


def test_a_gauge_is_read_at_each_snapshot() -> None:
    waiting: list[str] = []
    registry = Registry()
    registry.watch("depth", "Depth.", read=lambda: [((), len(waiting))])
    waiting.append("job")
    assert registry.snapshot()[0].points == (Point((), 1),)


def test_families_of_one_name_have_one_form() -> None:
    other = Registry()
    other.counter("jobs_total", "Jobs.", "slot")
    with pytest.raises(ValueError, match="jobs_total has another form"):
        merge([counted([]), other.snapshot()])


@pytest.mark.parametrize("name", ["jobs", "Jobs_total", "jobs-total"])
def test_a_counter_has_a_name_that_prometheus_expects(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Registry().counter(name, "Jobs.")


def test_a_gauge_is_not_called_a_total() -> None:
    with pytest.raises(ValueError, match="ends in _total"):
        Registry().watch("jobs_total", "Jobs.", read=lambda: [])


def test_a_mistake_in_the_code_is_told() -> None:
    registry = Registry()
    jobs = registry.counter("jobs_total", "Jobs.", "model")
    with pytest.raises(ValueError, match="has the labels"):
        jobs.child("a", "b")
    with pytest.raises(ValueError, match="already"):
        registry.counter("jobs_total", "Jobs.")
    with pytest.raises(ValueError, match="rise"):
        registry.histogram("sizes", "Sizes.", bounds=(2, 1))


# Text.


def samples(text: str, form: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    read = read_openmetrics if form == OPENMETRICS else read_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@given(events=EVENTS)
def test_a_prometheus_parser_reads_what_was_counted(form: str, events: list) -> None:
    found = samples(write(counted(events), form=form), form)
    for model in "abc":
        jobs = [amount for kind, name, amount in events if (kind, name) == ("jobs", model)]
        sizes = [amount for kind, name, amount in events if (kind, name) == ("sizes", model)]
        where = (("model", model),)
        assert found.get(("jobs_total", where), 0) == sum(jobs)
        assert found.get(("sizes_sum", where), 0) == sum(sizes)
        assert found.get(("sizes_count", where), 0) == len(sizes)
        for bound in BOUNDS:
            under = found.get(("sizes_bucket", (("le", f"{bound}.0"), *where)), 0)
            assert under == sum(size <= bound for size in sizes)


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@given(
    value=st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("\n")
    )
)
def test_any_text_may_be_a_label_and_a_help(form: str, value: str) -> None:
    registry = Registry()
    registry.counter("jobs_total", f"Jobs: {value}", "model").child(value).add()
    text = write(registry.snapshot(), form=form)
    assert samples(text, form)["jobs_total", (("model", value),)] == 1


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 2.0**80, 0.1, -3])
def test_any_number_may_be_a_value(form: str, value: float) -> None:
    registry = Registry()
    registry.watch("depth", "Depth.", read=lambda: [((), value)])
    assert samples(write(registry.snapshot(), form=form), form) == {("depth", ()): value}


# Requests.


def record(counts: RequestCounts, model: str, route: str, code: str = "") -> None:
    counts.record(model, route, 200, code, duration=0.1, bytes_in=3, bytes_out=4)


def test_a_route_is_counted_by_its_template() -> None:
    registry = Registry()
    record(RequestCounts(registry), "ocr", "/api/v1/models/ocr/predict")
    requests, _, received, sent = registry.snapshot()
    where = ("ocr", "/api/v1/models/{name}/predict")
    assert requests.points == (Point((*where, "200", ""), 1),)
    assert (received.points, sent.points) == ((Point(where, 3),), (Point(where, 4),))


def test_requests_beyond_the_bound_are_counted_all_the_same() -> None:
    registry = Registry(most=4)
    counts = RequestCounts(registry, most=4)
    for code in range(100):
        record(counts, "ocr", "/predict", f"code_{code}")
    requests = registry.snapshot()[0]
    assert len(requests.points) == 5
    assert sum(point.value for point in requests.points) == 100


# Asking the supervisor.


REPORT = msgspec.Raw(b'{"instance":{"pid":1,"uptime":2.0,"rss":3},"api_processes":[],"models":{}}')


@pytest.mark.anyio
async def test_who_looks_meanwhile_shares_the_survey() -> None:
    asked: list[int] = []
    instance = Instance(asked.append)
    found = []

    async def look() -> None:
        found.append(await instance.look())

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        assert asked == [1]
        instance.hear(1, REPORT)
    assert [report.instance.pid for report in found] == [1] * 10
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        instance.hear(asked[-1], REPORT)
    assert asked == [1, 2]


@pytest.mark.anyio
async def test_a_silent_supervisor_is_asked_again_after_a_while() -> None:
    asked: list[int] = []
    instance = Instance(asked.append)
    assert await instance.look(0.01) is None
    assert await instance.look(0.01) is None
    assert asked == [1]
    await anyio.sleep(PATIENCE)
    assert await instance.look(0.01) is None
    assert asked == [1, 2]
    instance.hear(1, REPORT)  # late, and better than nothing
    assert instance.latest is not None


@pytest.mark.anyio
async def test_nonsense_is_no_answer() -> None:
    instance = Instance(lambda number: instance.hear(number, msgspec.Raw(b'{"api": 1}')))
    assert await instance.look(0.01) is None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
