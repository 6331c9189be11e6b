"""The supervisor's side of workers, with real processes and signals around fakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from instances import Instance, await_gone, running

Links = list[list[Any]]


@contextmanager
def workers(
    settings: dict[str, Any] | None = None, prefix: Sequence[str] = (), **plans: dict[str, Any]
) -> Iterator[Instance]:
    """Run an instance whose models are those of ``plans``."""
    with running(settings, {}, prefix, workers=plans) as instance:
        yield instance


@contextmanager
def ready(
    settings: dict[str, Any] | None = None, prefix: Sequence[str] = (), **plans: dict[str, Any]
) -> Iterator[Instance]:
    with workers(settings, prefix, **plans) as instance:
        instance.wait_for("Ready")
        yield instance


def commanding(instance: Instance, do: str, **facts: Any) -> socket.socket:
    """Have an API process do something; its answer will come on the connection."""
    sock = socket.create_connection(instance.address, timeout=15)
    sock.sendall(json.dumps({"do": do, **facts}).encode() + b"\n")
    return sock


def ask(instance: Instance, do: str, **facts: Any) -> Any:
    """Have an API process do something, and return its answer."""
    with commanding(instance, do, **facts) as sock, sock.makefile("r") as answers:
        return json.loads(answers.readline())


def call(instance: Instance, link: list[Any], act: str, **facts: Any) -> Any:
    """Have the worker at the end of ``link`` do something; None when it is lost by that."""
    return ask(instance, "call", link=link, act=act, **facts)


def links(instance: Instance) -> Links:
    found: Links = ask(instance, "links")
    return found


def orders(instance: Instance, kind: str) -> list[dict[str, Any]]:
    told = instance.all("ModelChanged", model="orders", state=kind)
    return [json.loads(event["detail"]) | {"index": event["index"]} for event in told]


def wait_for_order(instance: Instance, kind: str, count: int = 1) -> dict[str, Any]:
    event = instance.wait_for("ModelChanged", model="orders", state=kind, count=count)
    order: dict[str, Any] = json.loads(event["detail"])
    return order


def hang(instance: Instance, link: list[Any], reason: str = "hung") -> float:
    model, slot, pid = link
    ask(instance, "hung", model=model, slot=slot, pid=pid, reason=reason)
    return time.monotonic()


def stop(instance: Instance) -> float:
    """Stop the instance in order; return how long that took."""
    began = instance.signal(signal.SIGTERM)
    assert instance.wait() == 0
    return time.monotonic() - began


# The start.


def test_a_model_is_ready_when_every_slot_has_loaded_and_is_linked() -> None:
    with ready(a={"options": {"slots": 2}}, b={}) as instance:
        found = links(instance)
        assert [link[:2] for link in found] == [["a", 0], ["a", 1], ["b", 0]]
        for link in found:
            pid, number, parent = call(instance, link, "pid")
            assert [link[1], link[2]] == [number, pid]
            assert parent == instance.process.pid
        assert wait_for_order(instance, "Link")["kinds"] == ["SOCK_STREAM", "SOCK_SEQPACKET"]
        told = [event["state"] for event in instance.all("ModelChanged", index=None, model="a")]
        assert told == ["loading", "ready"]
        kinds = [event["state"] for event in instance.all("ModelChanged", model="orders")]
        assert [kind for kind in kinds if kind != "Serve"][:2] == ["Configure", "Offer"]
        assert kinds[-1] == "ModelState"


def test_the_supervisor_of_workers_imports_nothing_heavy() -> None:
    with ready(a={}) as instance:
        stop(instance)
    assert instance.events[-1] == {"event": "Drained", "aborted": 0, "heavy": []}


def test_slots_load_at_the_same_time() -> None:
    with workers(a={"load": 1.0, "options": {"slots": 4}}) as instance:
        instance.wait_for("WorkerStarted", count=4)
        began = time.monotonic()
        instance.wait_for("Ready")
        assert time.monotonic() - began < 2.5


def test_every_api_process_has_a_link_to_every_worker() -> None:
    with ready({"api_processes": 2}, a={"options": {"slots": 2}}) as instance:
        instance.wait_for("ModelChanged", model="orders", state="Link", count=4)
        pairs = {(order["index"], order["slot"]) for order in orders(instance, "Link")}
        assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_settings_that_say_thread_start_no_worker() -> None:
    settings = {"executor": "process", "models": {"a": {"executor": "thread"}}}
    with ready(settings, a={}, b={}) as instance:
        assert wait_for_order(instance, "Configure")["sources"] == 1
        assert [link[0] for link in links(instance)] == ["b"]
        assert not instance.all("WorkerStarted", model="a")


def test_a_class_that_says_thread_goes_to_the_api_processes_a_later_one_included() -> None:
    with ready(a={"options": {"executor": "thread"}}, b={}) as instance:
        wait_for_order(instance, "Host")
        pid = instance.wait_for("WorkerStarted", model="a")["pid"]
        await_gone(pid)
        os.kill(instance.wait_for("Started")["pid"], signal.SIGKILL)
        assert wait_for_order(instance, "Configure", 2)["sources"] == 1
        instance.wait_for("Ready", count=2)
        assert len(instance.all("WorkerStarted")) == 2
        assert stop(instance) < 3


def test_a_wrapper_that_cannot_be_imported_ends_all_with_one_line_and_exit_code_2() -> None:
    with workers(a={"fatal": "a.py: no such class"}, b={}) as instance:
        assert instance.wait() == 2
    (failed,) = instance.all("Failed")
    assert failed["message"] == "a.py: no such class"


def test_an_import_that_kills_its_process_ends_all_with_exit_code_2() -> None:
    with workers(a={"exit_import": 9}) as instance:
        assert instance.wait(15) == 2
    assert len(instance.all("WorkerStarted")) == 6
    (failed,) = instance.all("Failed")
    assert failed["message"] == "a.py: its process ends before it is imported: exit code 9"


def test_two_models_of_one_name_end_all_and_both_are_named() -> None:
    plans = {name: {"unnamed": True, "model": "same"} for name in ("first", "second")}
    with workers(**plans) as instance:
        assert instance.wait() == 2
    (failed,) = instance.all("Failed")
    assert {"first.py", "second.py"} <= set(failed["message"].replace(";", "").split())
    assert failed["exit_code"] == 2


def test_a_table_for_no_model_ends_all_once_every_name_is_known() -> None:
    plan = {"unnamed": True, "model": "echo"}
    with workers({"models": {"ehco": {"slots": 2}}}, a=plan) as instance:
        assert instance.wait() == 2
    (failed,) = instance.all("Failed")
    assert failed["message"].startswith("[models.ehco]: no model of this name is served")


def test_a_table_of_an_unnamed_model_is_its_own() -> None:
    plan = {"unnamed": True, "model": "echo"}
    with ready({"models": {"echo": {"slots": 2}}}, a=plan) as instance:
        assert [link[0] for link in links(instance)] == ["echo"]


def test_a_spare_does_not_delay_the_start() -> None:
    with ready(a={"load": 0.2, "options": {"slots": 2, "spares": 1}}) as instance:
        instance.wait_for("WorkerStarted", slot=2)
        told = instance.all("ModelChanged", model="a", state="ready")[0]
        spare = instance.all("WorkerStarted", slot=2)[0]
        assert instance.events.index(told) < instance.events.index(spare)


# Loss and replacement.


def test_f01_a_killed_worker_is_replaced_and_linked_again() -> None:
    with ready(a={"options": {"slots": 2}}) as instance:
        lost, kept = links(instance)
        killed = time.monotonic()
        os.kill(lost[2], signal.SIGKILL)
        ended = instance.wait_for("WorkerEnded")
        assert ended["reason"] == "signal 9 (Killed): out of memory?"
        assert ended["restart_in"] == 0.1
        order = wait_for_order(instance, "Link", 3)
        assert time.monotonic() - killed < 2
        assert order["slot"] == lost[1]
        assert kept in links(instance)
        assert [link[:2] for link in links(instance)] == [["a", 0], ["a", 1]]
        # The other slot served on: the model never stopped being ready.
        assert len(instance.all("ModelChanged", model="a")) == 2


@pytest.mark.parametrize(
    ("act", "facts", "reason"),
    [
        ("exit", {"code": 0}, "exit code 0"),
        ("exit", {"code": 7}, "exit code 7"),
        ("kill", {"number": 11}, "signal 11 (Segmentation fault)"),
    ],
)
def test_f05_f06_whatever_ends_a_worker_is_a_crash_and_has_a_name(
    act: str, facts: dict[str, int], reason: str
) -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        assert call(instance, link, act, **facts) is None
        assert wait_for_order(instance, "Lost")["pid"] == link[2]
        assert instance.wait_for("WorkerEnded")["reason"] == reason
        loading = instance.wait_for("ModelChanged", model="a", state="loading", count=2)
        assert loading["detail"] == reason
        instance.wait_for("NotReady")
        instance.wait_for("Ready", count=2)


def test_f02_all_workers_killed_at_once_are_no_crash_loop() -> None:
    with ready(a={"options": {"slots": 7}}) as instance:
        for link in links(instance):
            os.kill(link[2], signal.SIGKILL)
        killed = time.monotonic()
        instance.wait_for("NotReady")
        assert time.monotonic() - killed < 1
        instance.wait_for("Ready", count=2, within=19)
        instance.wait_for("WorkerStarted", count=14, within=19)
        assert not instance.all("ModelChanged", state="failed")


def test_f03_a_new_api_process_gets_every_link_and_no_worker_is_restarted() -> None:
    with ready({"api_processes": 2}, a={"options": {"slots": 2}}, b={}) as instance:
        instance.wait_for("ModelChanged", model="orders", state="Link", count=6)
        os.kill(instance.wait_for("Started", index=1)["pid"], signal.SIGKILL)
        instance.wait_for("Started", index=1, count=2)
        instance.wait_for("Ready", count=2)
        fresh = [order for order in orders(instance, "Link") if order["index"] == 1][3:]
        assert {(order["model"], order["slot"]) for order in fresh} == {
            *(("a", 0), ("a", 1), ("b", 0))
        }
        assert len(instance.all("WorkerStarted")) == 3
        for order in orders(instance, "Link"):
            assert os.getpgid(order["pid"]) == order["pid"]


def test_f04_workers_die_with_a_killed_supervisor() -> None:
    with ready(a={"options": {"slots": 2}}) as instance:
        pids = [link[2] for link in links(instance)]
        instance.signal(signal.SIGKILL)
        assert instance.wait() == -signal.SIGKILL
        for pid in pids:
            await_gone(pid)


def test_f13_a_wrapper_that_cannot_load_is_given_up_and_the_others_serve() -> None:
    with workers(a={"broken": "ValueError: no weights"}, b={}) as instance:
        failed = instance.wait_for("ModelChanged", model="a", state="failed", within=15)
        assert failed["detail"] == "ValueError: no weights"
        ends = instance.all("WorkerEnded", model="a", cause="broken")
        assert [end["restart_in"] for end in ends] == [0.1, 0.2, 0.4, 0.8, 1.6, None]
        assert len(instance.all("WorkerStarted", model="a")) == 6
        loading = instance.all("ModelChanged", model="a", state="loading")
        assert [event["detail"] for event in loading] == ["", "ValueError: no weights"]
        (link,) = links(instance)
        assert call(instance, link, "pid")[0] == link[2]
        assert not instance.all("Ready")
        # A new API process hears of it too.
        os.kill(instance.wait_for("Started")["pid"], signal.SIGKILL)
        instance.wait_for("Started", count=2)
        instance.wait_for("ModelChanged", model="orders", state="Link", count=2)
        wait_for_order(instance, "Configure", 2)
        stop(instance)
    assert {"failed", "ready"} <= {order["state"] for order in orders(instance, "ModelState")[-2:]}


@pytest.mark.parametrize("size", [1_048_540, 3_000_000])
def test_an_error_of_any_size_fails_only_its_model(size: int) -> None:
    plan = {"broken": ["no", size], "options": {"crash_limit": "1/60s"}}
    with workers(a=plan, b={}) as instance:
        failed = instance.wait_for("ModelChanged", model="a", state="failed")
        assert failed["detail"].startswith("nonono")
        assert [end["cause"] for end in instance.all("WorkerEnded")] == ["broken", "broken"]
        wait_for_order(instance, "Link")
        (link,) = links(instance)
        assert call(instance, link, "pid")[0] == link[2]
        assert len(instance.all("Started")) == 1


def test_a_crash_loop_of_running_workers_fails_only_its_model() -> None:
    with ready(a={"options": {"slots": 2}}, b={}) as instance:
        healthy = links(instance)[1]
        for count in range(1, 7):
            slot = [link for link in links(instance) if link[:2] == ["a", 0]]
            call(instance, slot[0], "exit", code=1)
            instance.wait_for("WorkerEnded", count=count)
            if count < 6:
                instance.wait_for("ModelChanged", model="orders", state="Link", count=3 + count)
        instance.wait_for("ModelChanged", model="a", state="failed")
        await_gone(healthy[2])
        assert instance.wait_for("WorkerEnded", slot=1)["reason"] == "exit code 0"
        assert [link[0] for link in links(instance)] == ["b"]


def test_a_restart_that_cannot_be_imported_is_a_death_like_any_other(tmp_path: Path) -> None:
    plan = {"folder": str(tmp_path), "starts": {"2": {"fatal": "a.py: SyntaxError"}}}
    with ready(a=plan) as instance:
        call(instance, links(instance)[0], "exit", code=1)
        assert instance.wait_for("WorkerEnded", cause="broken")["reason"] == "a.py: SyntaxError"
        instance.wait_for("Ready", count=2)


def test_a_worker_that_loads_too_long_is_killed_and_the_reason_told(tmp_path: Path) -> None:
    plan = {
        "folder": str(tmp_path),
        "starts": {"1": {"deaf": True}},
        "options": {"startup_timeout": 1.0},
    }
    with workers(a=plan) as instance:
        ended = instance.wait_for("WorkerEnded", cause="startup_timeout")
        assert ended["reason"] == "not loaded within startup_timeout (1 s)"
        instance.wait_for("Ready")


def test_an_import_counts_as_startup() -> None:
    settings = {"models": {"a": {"startup_timeout": 0.5}}}
    with workers(settings, a={"import": 60}) as instance:
        ended = instance.wait_for("WorkerEnded", cause="startup_timeout")
        assert ended["reason"] == "not loaded within startup_timeout (0.5 s)"


def test_f14_a_slow_load_is_waited_for() -> None:
    with workers(a={"load": 2.0, "options": {"startup_timeout": 10}}) as instance:
        instance.wait_for("Ready")
        assert not instance.all("WorkerEnded")


def test_what_a_worker_leaves_behind_neither_hides_nor_survives_its_death() -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        assert call(instance, link, "stray", seconds=5) == link[2]
        os.kill(link[2], signal.SIGKILL)
        lost = wait_for_order(instance, "Lost")
        assert lost["pid"] == link[2]
        instance.wait_for("Ready", count=2)


# Hung and cancelled.


def test_f09_a_hung_worker_says_where_and_is_replaced() -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        told = hang(instance, link)
        await_gone(link[2])
        assert time.monotonic() - told < 1
        ended = instance.wait_for("WorkerEnded", cause="hung")
        assert ended["restart_in"] == 0.1
        instance.wait_for_log("plugin.output", stream="stderr", text="Fatal Python error: Aborted")
        assert "fake_children.py" in instance.errors
        instance.wait_for("Ready", count=2)


def test_f12_a_stopped_worker_is_killed_too() -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        os.kill(link[2], signal.SIGSTOP)
        told = hang(instance, link)
        await_gone(link[2])
        assert 0.4 < time.monotonic() - told < 1.5
        instance.wait_for("Ready", count=2)


def test_a_report_about_a_worker_of_the_past_hurts_nobody() -> None:
    with ready(a={}) as instance:
        ((model, slot, pid),) = links(instance)
        hang(instance, [model, slot, instance.process.pid])
        hang(instance, [model, slot + 1, pid])
        hang(instance, ["b", slot, pid])
        assert call(instance, [model, slot, pid], "pid")[0] == pid
        assert not instance.all("WorkerEnded")


def test_workers_killed_on_purpose_do_not_make_a_crash_loop() -> None:
    with ready(a={}) as instance:
        for count in range(2, 10):
            (link,) = links(instance)
            hang(instance, link, "cancelled")
            instance.wait_for("ModelChanged", model="orders", state="Link", count=count)
        assert all(end["restart_in"] is None for end in instance.all("WorkerEnded"))
        assert "Fatal Python error" not in instance.errors


def excuse(instance: Instance, link: list[Any]) -> None:
    model, slot, pid = link
    ask(instance, "excuse", model=model, slot=slot, pid=pid)


def latest(instance: Instance, count: int) -> list[Any]:
    """Return the link that was the one of number ``count``."""
    order = wait_for_order(instance, "Link", count)
    return ["a", order["slot"], order["pid"]]


def test_a_worker_that_an_api_process_lost_its_link_to_is_replaced() -> None:
    with ready({"api_processes": 2}, a={}) as instance:
        instance.wait_for("ModelChanged", model="orders", state="Link", count=2)
        (link,) = links(instance)
        for _ in range(2):  # each API process may say so
            hang(instance, link, "unlinked")
        ended = instance.wait_for("WorkerEnded", cause="unlinked")
        assert ended["pid"] == link[2]
        assert ended["restart_in"] is None
        assert instance.wait_for_log("worker.unlinked", pid=link[2], model="a", slot=0)
        instance.wait_for("ModelChanged", model="orders", state="Link", count=4)
        assert survey(instance)["models"]["a"]["restarts"] == {"unlinked": 1}
        assert len(instance.all("WorkerStarted")) == 2
        assert not instance.logged("worker.hung")


def test_a_link_that_ends_with_its_worker_is_a_death_like_any_other() -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        os.kill(link[2], signal.SIGKILL)
        hang(instance, link, "unlinked")
        assert instance.wait_for("WorkerEnded")["cause"] == "died"
        instance.wait_for("Ready", count=2)
        assert len(instance.all("WorkerStarted")) == 2


def test_an_unlinked_worker_that_hangs_is_killed() -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        os.kill(link[2], signal.SIGSTOP)
        hang(instance, link, "unlinked")
        instance.wait_for_log("worker.unlinked")
        hang(instance, link)
        assert instance.wait_for("WorkerEnded", pid=link[2])["cause"] == "hung"
        instance.wait_for("ModelChanged", model="orders", state="Link", count=2)


def test_links_lost_again_and_again_do_not_give_the_model_up() -> None:
    with ready(a={"options": {"crash_limit": "1/60s"}}) as instance:
        for count in range(1, 4):
            hang(instance, latest(instance, count), "unlinked")
            instance.wait_for("WorkerEnded", cause="unlinked", count=count)
        latest(instance, 4)
        assert not instance.all("ModelChanged", state="failed")


def test_an_excuse_before_the_death_spares_the_limit_and_the_wait() -> None:
    with ready(a={"options": {"crash_limit": "1/60s"}}) as instance:
        for count in range(1, 4):
            link = latest(instance, count)
            excuse(instance, link)
            instance.wait_for_log("worker.excused", pid=link[2])
            os.kill(link[2], signal.SIGKILL)
            assert instance.wait_for("WorkerEnded", pid=link[2])["restart_in"] == 0.0
        # One more death is the first that counts.
        os.kill(latest(instance, 4)[2], signal.SIGKILL)
        assert instance.wait_for("WorkerEnded", count=4)["restart_in"] == 0.1
        latest(instance, 5)


def test_an_excuse_after_the_death_takes_it_back() -> None:
    options = {"crash_limit": "1/60s", "idempotent": True}
    with ready(a={"options": options}) as instance:
        for count in range(1, 4):
            link = latest(instance, count)
            os.kill(link[2], signal.SIGKILL)
            instance.wait_for("WorkerEnded", pid=link[2])
            excuse(instance, link)
            instance.wait_for_log("worker.excused", pid=link[2])
        latest(instance, 4)
        assert not instance.all("ModelChanged", state="failed")


def test_an_excuse_for_the_death_that_would_be_one_too_many_is_not_too_late() -> None:
    options = {"crash_limit": "1/60s", "idempotent": True}
    with ready(a={"options": options}) as instance:
        os.kill(latest(instance, 1)[2], signal.SIGKILL)
        link = latest(instance, 2)
        os.kill(link[2], signal.SIGKILL)
        excuse(instance, link)
        assert instance.wait_for("WorkerEnded", pid=link[2])["restart_in"] == 0.0
        latest(instance, 3)


def test_excuses_are_few_and_for_workers_that_there_were() -> None:
    with ready(a={"options": {"crash_limit": "1/60s"}}) as instance:
        for _ in range(9):
            excuse(instance, ["a", 0, instance.process.pid])
        for _ in range(27):  # of 30 in a minute
            excuse(instance, latest(instance, 1))
        for count in range(1, 6):
            link = latest(instance, count)
            excuse(instance, link)
            os.kill(link[2], signal.SIGKILL)
            delay = instance.wait_for("WorkerEnded", pid=link[2])["restart_in"]
            if delay is None:
                break
        assert [end["restart_in"] for end in instance.all("WorkerEnded")] == [
            *(0.0, 0.0, 0.0, 0.1, None),
        ]


def test_a_spare_takes_over_at_once_and_is_replaced_itself() -> None:
    with ready(a={"load": 0.3, "options": {"spares": 1}}) as instance:
        loaded = instance.wait_for_log("worker.loaded", slot=1)
        (link,) = links(instance)
        told = hang(instance, link)
        taken = wait_for_order(instance, "Link", 2)
        assert time.monotonic() - told < 0.25
        assert (taken["slot"], taken["pid"]) == (0, loaded["pid"])
        assert call(instance, ["a", 0, loaded["pid"]], "pid")[1] == 1
        # The next spare is dealt what the worker that was lost had, its devices.
        spare = instance.wait_for("WorkerStarted", count=3)
        assert spare["slot"] == 1
        instance.wait_for_log("worker.loaded", pid=spare["pid"])
        hang(instance, ["a", 0, loaded["pid"]])
        assert wait_for_order(instance, "Link", 3)["pid"] == spare["pid"]
        assert call(instance, ["a", 0, spare["pid"]], "pid")[1] == 0


def test_a_lost_spare_is_replaced_and_its_model_stays_ready() -> None:
    with ready(a={"options": {"spares": 1}}) as instance:
        spare = instance.wait_for_log("worker.loaded", slot=1)["pid"]
        os.kill(spare, signal.SIGKILL)
        instance.wait_for("WorkerStarted", count=3)
        assert len(instance.all("ModelChanged", model="a")) == 2
        assert not instance.all("NotReady")


def broken_from(start: int, folder: Path) -> dict[str, Any]:
    """Return a plan whose starts fail from the one of number ``start``."""
    starts = {str(number): {"broken": "no room"} for number in range(start, 50)}
    return {"folder": str(folder), "starts": starts}


def test_a_spare_that_cannot_load_is_no_harm_to_the_worker_that_serves(tmp_path: Path) -> None:
    options = {"spares": 1, "crash_limit": "1/60s"}
    with ready(a={**broken_from(2, tmp_path), "options": options}) as instance:
        instance.wait_for("WorkerEnded", cause="broken", count=4)
        delays = [end["restart_in"] for end in instance.all("WorkerEnded", cause="broken")]
        assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
        assert len(instance.all("ModelChanged", model="a")) == 2
        (link,) = links(instance)
        assert call(instance, link, "pid")[0] == link[2]


def test_a_slot_does_not_wait_as_long_as_a_spare_that_cannot_load(tmp_path: Path) -> None:
    with ready(a={**broken_from(2, tmp_path), "options": {"spares": 1}}) as instance:
        instance.wait_for("WorkerEnded", cause="broken", restart_in=3.2)
        os.kill(links(instance)[0][2], signal.SIGKILL)
        assert [instance.wait_for("WorkerStarted", count=n)["slot"] for n in (1, 7, 8)] == [0, 1, 0]


# Recycling.


def test_a_successor_that_cannot_load_is_no_harm_to_the_worker_that_serves(tmp_path: Path) -> None:
    plan = {**broken_from(2, tmp_path), "options": {"crash_limit": "1/60s"}}
    with ready(a=plan) as instance:
        (link,) = links(instance)
        call(instance, link, "tired")
        instance.wait_for("WorkerEnded", cause="broken", count=4)
        assert links(instance) == [link]
        assert call(instance, link, "pid")[0] == link[2]
        # Once there is nobody to serve, it counts.
        os.kill(link[2], signal.SIGKILL)
        died = instance.wait_for("WorkerEnded", pid=link[2])
        assert (died["cause"], died["restart_in"]) == ("died", 0.1)
        instance.wait_for("ModelChanged", model="a", state="failed")


def test_a_tired_worker_leaves_when_its_successor_is_linked() -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        call(instance, link, "tired")
        ended = instance.wait_for("WorkerEnded")
        assert (ended["pid"], ended["cause"], ended["reason"]) == (
            *(link[2], "max_requests", "exit code 0"),
        )
        kinds = [event["state"] for event in instance.all("ModelChanged", model="orders")]
        assert kinds.index("Unlink") > [n for n, kind in enumerate(kinds) if kind == "Link"][1]
        assert not instance.all("NotReady")
        assert instance.logged("worker.recycled", reason="max_requests")


def test_tired_workers_are_replaced_one_at_a_time() -> None:
    with ready(a={"load": 0.3, "options": {"slots": 3}}) as instance:
        for link in links(instance):
            call(instance, link, "tired")
        instance.wait_for("WorkerEnded", count=3)
        later = [
            event["event"]
            for event in instance.events[instance.events.index(instance.all("Ready")[0]) :]
            if event["event"] in ("WorkerStarted", "WorkerEnded")
        ]
        assert later == ["WorkerStarted", "WorkerEnded"] * 3
        assert not instance.all("NotReady")


def test_recycling_for_ever_is_no_crash_loop() -> None:
    with ready(a={}) as instance:
        for count in range(1, 9):
            wait_for_order(instance, "Link", count)
            (link,) = (
                link for link in links(instance) if link[2] == orders(instance, "Link")[-1]["pid"]
            )
            call(instance, link, "tired")
            instance.wait_for("WorkerEnded", count=count)
        assert not instance.all("ModelChanged", state="failed")


def test_a_tired_worker_that_does_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEP_LINKS", "1")
    options = {"timeout": 0.5, "grace": 0.2, "unload_timeout": 0.3}
    with ready(a={"options": options}) as instance:
        (link,) = links(instance)
        call(instance, link, "tired")
        ended = instance.wait_for("WorkerEnded")
        assert (ended["reason"], ended["restart_in"]) == ("signal 9 (Killed)", None)


def test_a_tired_worker_stays_as_long_as_somebody_waits_for_its_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEEP_LINKS", "1")
    options = {"timeout": 0.1, "grace": 0.1, "unload_timeout": 0.1}
    with ready(a={"options": options}) as instance:
        (link,) = links(instance)
        streaming = {"slots": [{"slot": 0, "pid": link[2], "busy": 1}]}
        ask(instance, "be", models={"a": streaming})
        call(instance, link, "tired")
        wait_for_order(instance, "Survey", 3)
        assert call(instance, link, "pid")[0] == link[2]
        ask(instance, "be", models={"a": {"slots": []}})
        assert instance.wait_for("WorkerEnded")["cause"] == "max_requests"


def test_a_tired_worker_that_dies_while_its_successor_loads_is_buried_once() -> None:
    with ready(a={"load": 0.5}) as instance:
        (link,) = links(instance)
        call(instance, link, "tired")
        instance.wait_for("WorkerStarted", count=2)
        os.kill(link[2], signal.SIGKILL)
        assert instance.wait_for("WorkerEnded")["cause"] == "died"
        instance.wait_for("Ready", count=2)
        time.sleep(0.3)
        assert len(instance.all("WorkerStarted")) == 2
        # The next one that is tired has its turn.
        call(instance, links(instance)[0], "tired")
        instance.wait_for("WorkerEnded", count=2)


# Output and log.


def test_g06_what_a_plugin_prints_is_logged_with_its_origin() -> None:
    with ready(a={"options": {"slots": 2}}) as instance:
        link = links(instance)[1]
        call(instance, link, "write", stream=1, text="hello\n\x00\xff\x1b[2J\n" + "x" * 5000 + "\n")
        call(instance, link, "write", stream=2, text="no end")
        call(instance, link, "log")
        instance.wait_for_log("plugin.output", model="a", slot=1, stream="stdout", text="hello")
        instance.wait_for_log("plugin.output", slot=1, text="\\x00\\xff\\x1b[2J")
        instance.wait_for_log("plugin.output", slot=1, text="x" * 2048 + "...")
        call(instance, link, "exit", code=1)
        instance.wait_for_log("plugin.output", slot=1, stream="stderr", text="no end")
        assert "\na line of its own\n" in instance.errors


def test_what_a_load_prints_before_it_fails_is_logged() -> None:
    writes = [[2, "Traceback\n  of the load\n"]]
    with workers(a={"writes": writes, "broken": "no"}) as instance:
        instance.wait_for("WorkerEnded")
        instance.wait_for_log("plugin.output", text="  of the load", model="a", slot=0)


def test_a_plugin_that_prints_too_much_is_not_blocked() -> None:
    with ready(a={}) as instance:
        (link,) = links(instance)
        call(instance, link, "write", stream=1, text="noise\n" * 1000, times=300)
        dropped = instance.wait_for_log("plugin.output_dropped", model="a", stream="stdout")
        assert dropped["lines"] > 1000
        call(instance, link, "write", stream=1, text="after\n")
        time.sleep(1.1)
        call(instance, link, "write", stream=1, text="later\n")
        instance.wait_for_log("plugin.output", text="later")


@pytest.mark.parametrize("fault", ["closed", "blocked"])
def test_f18_a_log_that_nobody_reads_blocks_no_worker(fault: str) -> None:
    reader, writer = os.pipe()
    if fault == "closed":
        os.close(reader)
    else:
        os.set_blocking(writer, False)
        assert os.write(writer, bytes(1024 * 1024)) == 65536
        os.set_blocking(writer, True)
    with running(workers={"a": {}}, stderr=writer) as instance:
        os.close(writer)
        instance.wait_for("Ready")
        (link,) = links(instance)
        assert call(instance, link, "write", stream=1, text="noise\n" * 1000, times=100)
        stop(instance)
    if fault == "blocked":
        os.close(reader)


# The end.


def test_workers_stay_until_the_last_api_process_has_ended() -> None:
    with ready({"api_processes": 2}, a={}, b={"load": 0.1}) as instance:
        assert stop(instance) < 3
    ends = instance.all("WorkerEnded")
    assert [end["cause"] for end in ends] == ["stopped", "stopped"]
    assert {end["reason"] for end in ends} == {"exit code 0"}
    told = [event["event"] for event in instance.events]
    assert told[-3:] == ["WorkerEnded", "WorkerEnded", "Drained"]
    # Workers are lost to no API process: there is none any more.
    assert not orders(instance, "Lost")


def test_an_unload_gets_its_time_and_no_more() -> None:
    with ready({"unload_timeout": 1.0}, a={"unload": 0.5}, b={"unload": 60}) as instance:
        assert 1.0 < stop(instance) < 3
    assert instance.all("WorkerEnded", model="a")[0]["reason"] == "exit code 0"
    assert instance.all("WorkerEnded", model="b")[0]["reason"] == "signal 9 (Killed)"


def test_a_stop_during_a_load_does_not_wait_for_it() -> None:
    spare = {"load": 60, "options": {"slots": 2, "spares": 1}}
    with workers(a=spare, b={"deaf": True}, c={"import": 60}) as instance:
        instance.wait_for("ModelChanged", model="a")
        instance.wait_for("ModelChanged", model="b")
        instance.wait_for("Serving")
        assert stop(instance) < 2


def test_a_stop_during_a_back_off_of_workers_does_not_wait_for_it() -> None:
    with workers(a={"broken": "no"}) as instance:
        instance.wait_for("Serving")
        instance.wait_for("WorkerEnded", restart_in=1.6)
        assert stop(instance) < 1


def test_d05_a_second_signal_stops_workers_at_once() -> None:
    with ready({"unload_timeout": 30.0}, a={"unload": 60}, b={}) as instance:
        found = {link[0]: link for link in links(instance)}
        os.kill(found["b"][2], signal.SIGSTOP)
        instance.signal(signal.SIGTERM)
        instance.wait_for("NotReady")
        await_gone(instance.wait_for("Started")["pid"])
        sent = instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
        assert time.monotonic() - sent < 1.5


# The instance as a whole.


def survey(instance: Instance, number: int = 7) -> dict[str, Any]:
    asked, document = ask(instance, "survey", number=number)
    assert asked == number
    found: dict[str, Any] = document
    return found


def test_a_survey_shows_every_process_and_what_it_says() -> None:
    with ready({"api_processes": 1}, a={"options": {"slots": 2, "spares": 1}}) as instance:
        spare = instance.wait_for_log("worker.loaded", slot=2)["pid"]
        first, second = links(instance)
        call(instance, first, "exit", code=3)
        instance.wait_for("ModelChanged", model="orders", state="Link", count=3)
        instance.wait_for("WorkerStarted", count=4)
        found = survey(instance)
        assert found["instance"]["pid"] == instance.process.pid
        assert found["instance"]["uptime"] > 0
        (api,) = found["api_processes"]
        assert (api["ready"], api["restarts"], api["counters"]) == (True, 0, {"api": 1})
        model = found["models"]["a"]
        assert (model["state"], model["restarts"]) == ("ready", {"died": 1})
        rows = [(row["slot"], row["pid"], row["restarts"]) for row in model["slots"]]
        assert rows == [(0, spare, 1), (1, second[2], 0)]
        assert [row["document"]["requests"] for row in model["slots"]] == [2, 1]
        assert all(row["rss"] > 1_000_000 for row in model["slots"])
        assert len(model["spares"]) == 1


def test_a_survey_does_not_wait_for_who_cannot_speak() -> None:
    with ready(a={}, b={}) as instance:
        stopped = next(link for link in links(instance) if link[0] == "a")
        os.kill(stopped[2], signal.SIGSTOP)
        began = time.monotonic()
        found = survey(instance)
        assert 0.4 < time.monotonic() - began < 1.3
        assert found["models"]["a"]["slots"][0]["document"] is None
        assert found["models"]["b"]["slots"][0]["document"]["requests"] == 0


def test_a_survey_shows_whoever_loads_though_the_spare_was_lost_too() -> None:
    with ready(a={"load": 1.0, "options": {"spares": 1}}) as instance:
        spare = instance.wait_for_log("worker.loaded", slot=1)["pid"]
        os.kill(links(instance)[0][2], signal.SIGKILL)
        assert wait_for_order(instance, "Link", 2)["pid"] == spare
        os.kill(spare, signal.SIGKILL)
        # The one that will serve next, and the one that will wait.
        pids = {instance.wait_for("WorkerStarted", count=n)["pid"] for n in (3, 4)}
        model = survey(instance)["models"]["a"]
        (row,), (waiting,) = model["slots"], model["spares"]
        assert (row["slot"], row["restarts"]) == (0, 1)
        assert row["state"] in ("starting", "loading")
        assert {row["pid"], waiting["pid"]} == pids


def test_an_api_process_that_answers_nobody_is_replaced() -> None:
    with ready({"api_processes": 2}, a={}) as instance:
        stopped = instance.wait_for("Started", index=1)["pid"]
        os.kill(stopped, signal.SIGSTOP)
        # New connections may reach the one that is stopped, and wait there.
        asked = [commanding(instance, "survey", number=number) for number in range(8)]
        silent = instance.wait_for_log("server.silent", within=15, index=1, pid=stopped)
        assert silent["seconds"] == 10.0
        assert instance.wait_for("Died", index=1)["pid"] == stopped
        instance.wait_for("Ready", count=2)
        assert not instance.all("Died", index=0)
        for sock in asked:
            sock.close()


def test_an_api_process_that_was_only_slow_is_kept() -> None:
    with ready({"api_processes": 2}, a={}) as instance:
        stopped = instance.wait_for("Started", index=1)["pid"]
        os.kill(stopped, signal.SIGSTOP)
        asked = [commanding(instance, "survey", number=number) for number in range(8)]
        instance.wait_for_log("server.doubted", index=1)
        os.kill(stopped, signal.SIGCONT)
        instance.wait_for_log("server.answered", index=1, within=15)
        assert not instance.all("Died")
        for sock in asked:
            sock.close()


def test_a_survey_shows_a_slot_that_waits_for_its_restart() -> None:
    with workers(a={"broken": "no"}) as instance:
        instance.wait_for("Serving")
        instance.wait_for("WorkerEnded", restart_in=1.6)
        model = survey(instance)["models"]["a"]
        (row,) = model["slots"]
        assert (row["slot"], row["pid"], row["state"]) == (0, None, "restarting")
        assert (model["state"], model["detail"]) == ("loading", "no")
        assert model["restarts"] == {"broken": 5}


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_idle_supervisor_of_workers_takes_no_cpu() -> None:
    with ready(a={"options": {"slots": 2, "spares": 1}}) as instance:
        instance.wait_for_log("worker.loaded", slot=2)
        time.sleep(0.5)  # what the start left behind
        before = ticks(instance.process.pid)
        time.sleep(3)
        assert ticks(instance.process.pid) - before <= 1


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def replace(instance: Instance, times: int) -> None:
    for _ in range(times):
        (link,) = links(instance)
        count = len(orders(instance, "Link"))
        hang(instance, link, "cancelled")
        wait_for_order(instance, "Link", count + 1)


@pytest.mark.parametrize(
    "times", [8, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(180)])]
)
def test_f15_killed_workers_leave_nothing_behind(times: int) -> None:
    with ready(a={}) as instance:
        replace(instance, 3)
        pid, api = instance.process.pid, instance.wait_for("Started")["pid"]
        before = [open_files(pid), open_files(api), len(children(pid))]
        replace(instance, times)
        wait_for_order(instance, "Lost", times + 3)
        after = [open_files(pid), open_files(api), len(children(pid))]
        assert after == before


def test_f22_a_storm_of_signals_changes_nothing() -> None:
    numbers = (
        *(signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN),
        *(signal.SIGTTOU, signal.SIGCHLD, signal.SIGUSR2),
    )
    with ready(a={"options": {"slots": 2}}) as instance:
        before = links(instance)
        for number in range(1000):
            instance.signal(numbers[number % len(numbers)])
        assert links(instance) == before
        assert survey(instance)["models"]["a"]["state"] == "ready"
        assert stop(instance) < 3


def test_f16_as_process_1_it_spares_the_exit_codes_of_workers() -> None:
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("NOT TESTED: no permission to make a pid namespace")
    with ready(None, unshare, a={}) as instance:
        (link,) = links(instance)
        call(instance, link, "exit", code=13)
        assert instance.wait_for("WorkerEnded")["reason"] == "exit code 13"
        instance.wait_for("Ready", count=2)
        (first,) = children(instance.process.pid)
        os.kill(first, signal.SIGTERM)
        assert instance.wait() == 0
