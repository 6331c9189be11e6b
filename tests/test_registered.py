"""A whole instance and its control plane: registered once, withdrawn in time, served always."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import anyio
import instances
import live
import msgspec
import pytest
from control_plane import ControlPlane, Handler, control_plane, hang

from atomserve.errors import ConfigError
from atomserve.registration.address import advertised
from atomserve.registration.registrars import known, registrar_for
from atomserve.settings import RegistrationSettings, Settings
from atomserve.supervisor.announcer import Announcer

ROOT = Path(__file__).parent.parent


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        yield plane


def registered(plane: ControlPlane, **settings: Any) -> dict[str, Any]:
    """Return settings of an instance that registers at ``plane``, without haste or jitter."""
    own = {
        "registrar": "linker",
        "url": plane.url,
        "instance": "pod-1",
        "advertise": "http://10.1.2.3:8000",
        "start_jitter": 0.0,
        "heartbeat": 0.2,
        "backoff_min": 0.2,
    }
    names = set(RegistrationSettings.__struct_fields__)
    own |= {name: settings.pop(name) for name in list(settings) if name in names}
    return {"registration": own, **settings}


def test_four_api_processes_are_one_instance(plane: ControlPlane) -> None:
    with instances.serving(registered(plane, api_processes=4)) as instance:
        plane.wait_for("health", count=3)
        os.kill(instance.wait_for("Started")["pid"], signal.SIGKILL)
        instance.wait_for("Ready", count=2)
        plane.wait_for("health", count=len(plane.calls("health")) + 3)
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
    assert [call.body["atomInstanceName"] for call in plane.calls("register")] == ["pod-1"]
    assert len(plane.calls("unRegister")) == 1
    assert plane.heard[-1].name == "unRegister"
    assert set(instance.events[-1]["heavy"]) <= {"httpx2", "h2"}, "what calls need, and no more"


def test_r14_an_instance_registers_when_it_is_ready(plane: ControlPlane) -> None:
    statuses: list[int] = []

    def asks(handler: Handler) -> None:
        statuses.append(instance.get("/readyz")[0])
        handler.say(b'{"code": "0"}')

    plane.faults["register"] = asks
    with instances.running(registered(plane), {"load": 1.0}) as instance:
        plane.wait_for("health")
    assert statuses == [200]
    assert [call.name for call in plane.heard[:2]] == ["register", "health"]


def test_r01_a_control_plane_that_is_down_holds_nothing_up(plane: ControlPlane) -> None:
    plane.down()
    with instances.serving(registered(plane)) as instance:
        assert instance.get("/readyz")[0] == 200
        instance.wait_for_log("registration.changed", state="waiting")
        plane.up()
        plane.wait_for("health")
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
    told = [record["level"] for record in instance.logged("registration.changed")]
    assert told == ["warning", "info", "info"]


def test_it_withdraws_before_connections_are_refused(plane: ControlPlane) -> None:
    withdrawn = threading.Event()

    def waits(handler: Handler) -> None:
        withdrawn.wait(15)
        handler.say(b'{"code": "0"}')

    plane.faults["unRegister"] = waits
    with instances.serving(registered(plane, withdraw_timeout=15.0)) as instance:
        plane.wait_for("health")
        instance.signal(signal.SIGTERM)
        plane.wait_for("unRegister")
        instance.wait_for("NotReady")
        assert instance.get("/readyz")[0] == 503
        assert instance.get("/version")[0] == 200
        beats = len(plane.calls("health"))
        withdrawn.set()
        assert instance.wait() == 0
    assert len(plane.calls("health")) == beats
    instance.wait_for_log("registration.changed", state="withdrawn")


def test_r09_a_stop_waits_two_seconds_for_a_control_plane_that_hangs(plane: ControlPlane) -> None:
    with instances.serving(registered(plane)) as instance:
        plane.wait_for("health")
        plane.faults = dict.fromkeys(("register", "health", "unRegister"), hang)
        plane.wait_for("health", count=len(plane.calls("health")) + 1)
        sent = instance.signal(signal.SIGTERM)
        assert instance.wait(15) == 0
        # Far less than a call may take; a slow test has the figure.
        assert time.monotonic() - sent < 10.0
    assert len(plane.calls("unRegister")) == 1
    record = instance.wait_for_log("registration.changed", state="withdrawn")
    assert record["error"] == "no answer within 2 s"


def test_a_second_signal_waits_for_no_withdrawal(plane: ControlPlane) -> None:
    with instances.serving(registered(plane, withdraw_timeout=60.0)) as instance:
        plane.wait_for("health")
        plane.faults["unRegister"] = hang
        instance.signal(signal.SIGTERM)
        plane.wait_for("unRegister")
        instance.signal(signal.SIGTERM)
        assert instance.wait(15) == 0


def test_a_stop_before_anything_was_told_tells_nothing(plane: ControlPlane) -> None:
    with instances.serving(registered(plane, start_jitter=600.0)) as instance:
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
    assert not plane.heard


@pytest.mark.slow
def test_an_instance_that_gives_up_withdraws(
    plane: ControlPlane,
) -> None:
    options = {"dies_after": 1.0}  # again and again: a crash loop ends the instance
    with instances.running(registered(plane), options) as instance:
        plane.wait_for("health")
        assert instance.wait(30) == 3
    assert len(plane.calls("unRegister")) == 1


def test_r10_nobody_beats_for_a_killed_instance(plane: ControlPlane) -> None:
    with instances.serving(registered(plane, heartbeat=0.05)) as instance:
        plane.wait_for("health", count=3)
        instance.signal(signal.SIGKILL)
        instance.wait()
        for event in instance.all("Started"):
            instances.await_gone(event["pid"])
        beats = len(plane.calls("health"))
        with pytest.raises(AssertionError):
            plane.wait_for("health", count=beats + 2, within=0.5)  # one may be on its way


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"registrar": "zookeeper"}, 'no registrar "zookeeper" is installed'),
        ({"registrar": "linker", "url": "http://a:1", "options": {"x": 1}}, "unknown field `x`"),
    ],
)
def test_settings_that_do_not_fit_are_one_line_and_exit_code_2(
    settings: dict[str, Any], words: str
) -> None:
    with instances.running({"registration": settings}) as instance:
        assert instance.wait() == 2
    (failed,) = instance.events
    assert words in failed["message"]
    assert "\n" not in failed["message"]


# What is seen of it.


def toml(settings: dict[str, Any]) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings["registration"].items()]
    return "\n".join(["[registration]", *lines])


def test_r07_a_registration_that_fails_is_seen_and_decides_nothing(
    plane: ControlPlane, tmp_path: Path
) -> None:
    settings = toml(registered(plane, heartbeat=0.1))
    with live.live(tmp_path, "--plugins", "echo", toml=settings) as server:
        plane.wait_for("health")
        with server.client() as client:
            assert "[+] registration: registered\n" in await_text(client, "registered")
            plane.faults["health"] = lambda handler: handler.say(
                b'{"code": "0", "data": "register"}'
            )
            plane.faults["register"] = lambda handler: handler.say(b'{"code": "1"}')
            text = await_text(client, 'lost (its code is "1", not "0")')
            assert "[-] registration: lost" in text
            assert text.endswith("readyz check passed\n")
            found = client.get("/readyz", headers={"Accept": "application/json"}).json()
            assert found["registration"]["state"] == "lost"
            metrics = client.get("/metrics").text
            line = 'atomserve_registration_state{registrar="linker",state="lost"} 1'
            assert line in metrics
            assert 'state="registered"} 0' in metrics
            assert 'atomserve_registration_calls_total{registrar="linker",call="hea' in metrics
            status = client.get("/v1/status").json()["registration"]
            assert status["instance"] == "pod-1"
            assert status["url"] == "http://10.1.2.3:8000"
        shown = subprocess.run(
            live.command("status", server.url),
            env=live.environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        line = 'linker: lost (its code is "1", not "0"), as pod-1 at http://10.1.2.3:8000'
        assert line in shown


def await_text(client: Any, words: str) -> str:
    end = time.monotonic() + 15
    while words not in (text := client.get("/readyz?verbose").text):
        assert time.monotonic() < end, text
        time.sleep(0.05)
    return str(text)


def test_a_file_tells_of_the_load_of_all_api_processes(tmp_path: Path) -> None:
    place = tmp_path / "atom.json"
    settings = {"registrar": "file", "start_jitter": 0.0, "heartbeat": 0.1}
    lines = f'{toml({"registration": settings})}\noptions = {{ path = "{place}" }}'
    with live.live(tmp_path, "--plugins", "echo", "--workers", "2", toml=lines) as server:
        end = time.monotonic() + 15
        while not place.exists() or not (found := json.loads(place.read_text()))["load"]["places"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert found["url"] == server.url
        assert server.records("registration.unreachable"), "a loopback address is of little use"
        server.signal(signal.SIGTERM)
        end = time.monotonic() + 15
        while place.exists():
            assert time.monotonic() < end
            time.sleep(0.05)


# Where the instance is reached.


@pytest.mark.parametrize(
    ("places", "settings", "url", "doubted"),
    [
        (["10.1.2.3:8000"], {}, "http://10.1.2.3:8000", False),
        (["10.1.2.3:8443"], {"certfile": "c", "keyfile": "k"}, "https://10.1.2.3:8443", False),
        (["[fd00::1]:8000"], {}, "http://[fd00::1]:8000", False),
        (["127.0.0.1:8000"], {}, "http://127.0.0.1:8000", True),
        (["[::1]:8000"], {}, "http://[::1]:8000", True),
        (["unix:/run/atom.sock"], {}, "", True),
        (["0.0.0.0:8000"], {}, f"http://{os.uname().nodename}:8000", False),
        (["[::]:8000", "0.0.0.0:8000"], {}, f"http://{os.uname().nodename}:8000", False),
        (
            ["127.0.0.1:8000"],
            {"registration": RegistrationSettings(advertise="https://atom.test/")},
            "https://atom.test",
            False,
        ),
    ],
)
def test_the_advertised_url_follows_from_where_it_listens(
    places: list[str], settings: dict[str, Any], url: str, doubted: bool
) -> None:
    found = advertised(Settings(**settings), places)
    assert (found.url, bool(found.doubt)) == (url, doubted)


# What is said after the start.


class Apis:
    """API processes that nothing is asked of."""

    def __init__(self) -> None:
        self.running: dict[int, Any] = {}
        self.posted: list[Any] = []

    def post(self, message: msgspec.Struct) -> None:
        self.posted.append(message)


def test_what_an_app_says_replaces_what_was_announced(plane: ControlPlane) -> None:
    settings = msgspec.convert(registered(plane, registrar="consul"), Settings)
    apis = Apis()

    async def main() -> None:
        announcer = Announcer(settings, cast("Any", apis), ["10.1.2.3:8000"])
        first = settings.registration
        announcer.become_ready(True)
        with anyio.fail_after(18):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(announcer.run, registrar_for(first))
                await anyio.to_thread.run_sync(plane.wait_for, "pass")
                with pytest.raises(ConfigError):
                    announcer.announce(msgspec.structs.replace(first, registrar="none"))
                announcer.announce(msgspec.structs.replace(first, instance="pod-2"))
                await anyio.to_thread.run_sync(lambda: plane.wait_for("register", count=2))
                await announcer.withdraw()
                announcer.announce(first)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()

    anyio.run(main)
    names = [call.name for call in plane.heard if call.name != "pass"]
    assert names == ["register", "deregister", "register", "deregister"]
    one, two = (call.body["Meta"] for call in plane.calls("register"))
    assert (one["instance"], two["instance"]) == ("pod-1", "pod-2")
    assert int(two["epoch"]) > int(one["epoch"])
    assert apis.posted[-1].state == "withdrawn"


def test_an_installed_registrar_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "strange-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    points = "[atomserve.registrars]\nodd = strange_registrar:make\n"
    (folder / "entry_points.txt").write_text(points)
    (tmp_path / "strange_registrar.py").write_text(
        "def make(settings):\n    return ['a registrar', settings.url]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert known()["odd"] == "strange_registrar:make"
    made: Any = registrar_for(RegistrationSettings(registrar="odd", url="http://a:1"))
    assert made == ["a registrar", "http://a:1"]
