from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from instances import answer, await_gone, running, serving

from atomserve.supervisor.restarts import Restarts


def test_restarts_come_later_and_later_and_end() -> None:
    restarts = Restarts()
    assert [restarts.after_death(now) for now in range(6)] == [
        *(pytest.approx(delay) for delay in (0.1, 0.2, 0.4, 0.8, 1.6)),
        None,
    ]


def test_a_limit_that_bears_more_deaths_waits_less_for_each() -> None:
    restarts = Restarts("600/60s")
    delays = [restarts.after_death(0.0) for _ in range(601)]
    assert delays == [pytest.approx(0.1)] * 600 + [None]


def test_deaths_of_long_ago_are_forgiven() -> None:
    restarts = Restarts()
    assert [restarts.after_death(now * 61.0) for now in range(20)] == [0.1] * 20


def test_the_supervisor_imports_nothing_heavy() -> None:
    with serving() as instance:
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
    assert instance.events[-1] == {"event": "Drained", "aborted": 0, "heavy": []}


def test_events_tell_a_start_and_a_stop_in_order() -> None:
    with serving() as instance:
        instance.signal(signal.SIGTERM)
        instance.wait()
    told = [event["event"] for event in instance.events if event["event"] != "ModelChanged"]
    assert told == [
        *("Bound", "Started", "Serving", "Ready"),
        *("Draining", "NotReady", "Drained"),
    ]
    states = [event["state"] for event in instance.all("ModelChanged", model="echo")]
    assert states == ["loading", "ready"]


def test_serving_precedes_readiness_which_waits_for_the_models() -> None:
    with running({}, {"load": 0.5}) as instance:
        instance.wait_for("Serving")
        assert instance.get("/readyz")[0] == 503
        assert not instance.all("Ready")
        instance.wait_for("Ready")
        assert instance.get("/readyz")[0] == 200


def test_f03_a_killed_api_process_is_replaced_while_the_other_serves() -> None:
    with serving({"api_processes": 2}) as instance:
        victim, other = (event["pid"] for event in instance.all("Started"))
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        died = instance.wait_for("Died", index=0)
        assert died["reason"] == "signal 9 (Killed)"
        # Connections given to the dead one wait in its socket for the next.
        answered = {int(instance.get("/pid")[1]) for _ in range(30)}
        replaced = instance.wait_for("Started", index=0, count=2)["pid"]
        assert time.monotonic() - killed < 2.0
        assert answered == {other, replaced}
        instance.wait_for("Ready", count=2)


def test_f04_the_children_of_a_killed_supervisor_die_and_free_the_port() -> None:
    with serving({"api_processes": 2}) as instance:
        address = instance.address
        children = [event["pid"] for event in instance.all("Started")]
        instance.signal(signal.SIGKILL)
        assert instance.wait() == -signal.SIGKILL
        for pid in children:
            await_gone(pid)
    with socket.create_server(address):
        pass


def test_f04_a_child_that_hears_nothing_dies_with_its_supervisor() -> None:
    with serving() as instance:
        pid = instance.wait_for("Started")["pid"]
        os.kill(pid, signal.SIGSTOP)
        instance.signal(signal.SIGKILL)
        await_gone(pid)


def test_what_a_killed_api_process_has_started_ends_with_it() -> None:
    with serving() as instance:
        stray = int(instance.get("/stray")[1])
        os.kill(instance.wait_for("Started")["pid"], signal.SIGKILL)
        await_gone(stray)
        instance.wait_for("Serving", count=2)


def test_what_an_api_process_starts_heeds_signals() -> None:
    with serving() as instance:
        stray = int(instance.get("/stray")[1])
        status = Path(f"/proc/{stray}/status").read_text()
        ignored = int(status.partition("SigIgn:\t")[2].split()[0], 16)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            assert not ignored >> (number - 1) & 1
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
        await_gone(stray)


def test_f13_a_crash_loop_ends_with_its_exit_code() -> None:
    with running({}, {"crash": True}) as instance:
        assert instance.wait(15) == 3
    assert len(instance.all("Started")) == 6
    delays = [event["restart_in"] for event in instance.all("Died", reason="exit code 7")]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, None]
    assert "keeps dying (exit code 7)" in instance.wait_for("Failed")["message"]


@pytest.mark.parametrize("fault", ["bad_plugin", "bad_model"])
def test_a_bad_plugin_ends_all_with_one_line_and_exit_code_2(fault: str) -> None:
    with running({"api_processes": 2}, {fault: "ocr: no such class"}) as instance:
        assert instance.wait() == 2
    (failed,) = instance.all("Failed")
    assert failed["message"] == "ocr: no such class"
    assert not instance.all("Died")


def test_a_dead_lifespan_ends_its_process() -> None:
    with running({}, {"dies_after": 0.2}) as instance:
        instance.wait_for("Serving")
        instance.wait_for("Died", reason="exit code 1")
        instance.wait_for("Serving", count=2)
    assert "the engine died" in instance.errors


@pytest.mark.parametrize("processes", [1, 2])
def test_d12_a_busy_port_is_one_line_and_exit_code_98(processes: int) -> None:
    with serving({"api_processes": processes}) as first:
        host, port = first.address
        with running({"port": port, "api_processes": processes}) as second:
            assert second.wait() == 98
        (failed,) = second.events
        assert failed["message"] == f"{host}:{port} is in use"
        assert first.get("/readyz")[0] == 200


def test_a_host_that_is_not_ours_is_one_line_and_exit_code_2() -> None:
    with running({"host": "203.0.113.7"}) as instance:
        assert instance.wait() == 2
    (failed,) = instance.events
    assert failed["message"] == "host: '203.0.113.7' is no address of this machine"


def test_d13_a_start_right_after_a_kill_succeeds() -> None:
    with serving({"api_processes": 2}) as first:
        port = first.address[1]
        connections = [first.send("/readyz") for _ in range(4)]
        for connection in connections:
            assert b" 200 " in answer(connection)
        for pid in [first.process.pid, *(event["pid"] for event in first.all("Started"))]:
            os.kill(pid, signal.SIGKILL)
        first.wait()
        for event in first.all("Started"):
            await_gone(event["pid"])
        start = time.monotonic()
        with serving({"port": port, "api_processes": 2}) as second:
            assert time.monotonic() - start < 3.0
            assert second.get("/readyz")[0] == 200
        for connection in connections:
            connection.close()


def test_d05_a_second_signal_stops_at_once() -> None:
    with serving({"drain_delay": 5.0}) as instance, instance.send("/sleep?s=60") as connection:
        instance.await_in_flight(1)
        instance.signal(signal.SIGTERM)
        instance.wait_for("NotReady")
        sent = instance.signal(signal.SIGTERM)
        assert b" 503 " in answer(connection)
        assert instance.wait() == 0
        assert time.monotonic() - sent < 1.0


def test_a_second_signal_stops_a_child_that_hears_nothing() -> None:
    with serving({"drain_delay": 5.0}) as instance:
        pid = instance.wait_for("Started")["pid"]
        os.kill(pid, signal.SIGSTOP)
        instance.signal(signal.SIGTERM)
        instance.wait_for("Draining")
        sent = instance.signal(signal.SIGINT)
        assert instance.wait() == 0
        assert time.monotonic() - sent < 1.0
        assert instance.all("Killed", pid=pid)


def test_a_child_that_never_stops_is_killed_at_the_hard_end() -> None:
    with serving({"drain_timeout": 0.2, "unload_timeout": 0.2}) as instance:
        pid = instance.wait_for("Started")["pid"]
        os.kill(pid, signal.SIGSTOP)
        sent = instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
        assert 2.4 <= time.monotonic() - sent < 3.5
        assert instance.all("Killed", pid=pid)


def test_a_stop_during_a_slow_import_does_not_wait_for_it() -> None:
    with running({}, {"slow_import": 30}) as instance:
        instance.wait_for("Started")
        sent = instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
        assert time.monotonic() - sent < 1.5
        assert not instance.all("Killed"), "it had nothing to lose"
    assert "server.killed" not in instance.errors


def test_a_stop_during_a_back_off_does_not_wait_for_it() -> None:
    with running({}, {"crash": True}) as instance:
        instance.wait_for("Died", restart_in=1.6)
        sent = instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
        assert time.monotonic() - sent < 1.0


def test_ctrl_c_drains_without_delay() -> None:
    with serving({"drain_delay": 5.0}) as instance:
        sent = instance.signal(signal.SIGINT)
        assert instance.wait() == 0
        assert time.monotonic() - sent < 2.0


def test_children_heed_no_signals_but_the_channel() -> None:
    with serving() as instance:
        pid = instance.wait_for("Started")["pid"]
        assert os.getpgid(pid) == pid != os.getpgid(instance.process.pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        assert instance.get("/pid") == (200, str(pid))
        assert len(instance.all("Started")) == 1


def test_a_hangup_changes_nothing() -> None:
    with serving() as instance:
        instance.signal(signal.SIGHUP)
        assert instance.get("/readyz")[0] == 200
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
    assert "reload_unsupported" in instance.errors


@pytest.mark.both_servers
def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "atom.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with serving({"uds": str(path), "api_processes": 2}) as instance:
        assert instance.wait_for("Serving")["urls"] == [f"unix:{path}"]
        command = ["curl", "-s", "--unix-socket", str(path), "http://a/version"]
        assert subprocess.check_output(command) == b"http 1.1"
        with running({"uds": str(path)}) as second:
            assert second.wait() == 98
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
    assert not path.exists()


def test_an_idle_instance_takes_no_cpu() -> None:
    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    with serving() as instance:
        assert instance.get("/readyz")[0] == 200
        pids = (instance.process.pid, instance.wait_for("Started")["pid"])
        time.sleep(0.5)  # what the start left behind
        before = sum(map(ticks, pids))
        time.sleep(5)
        assert sum(map(ticks, pids)) - before <= 1


def test_f16_as_process_1_it_reaps_orphans_and_heeds_sigterm() -> None:
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("NOT TESTED: no permission to make a pid namespace")
    with running({}, {}, unshare) as instance:
        instance.wait_for("Ready")
        children = Path(f"/proc/{instance.process.pid}/task/{instance.process.pid}/children")
        first = int(children.read_text())
        of_first = Path(f"/proc/{first}/task/{first}/children")
        assert instance.get("/orphan")[0] == 200
        end = time.monotonic() + 5
        while len(of_first.read_text().split()) > 1:
            assert time.monotonic() < end, "the orphan was not reaped"
        assert instance.get("/readyz")[0] == 200
        assert not instance.all("Died")
        os.kill(first, signal.SIGTERM)
        assert instance.wait() == 0
        instance.wait_for("Drained")
