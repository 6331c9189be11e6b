"""A service of linker_atom and its control plane: registered as META says, and withdrawn."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import live
import pytest
from control_plane import ControlPlane, Handler, control_plane

EXAMPLE = Path(__file__).parent.parent / "plugins" / "linker-examples" / "server.py"
SERVING = '"servingHost": "",\n    "servingPort": "0"'

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        yield plane


def meta(plane: ControlPlane) -> dict[str, object]:
    return {
        "abilityCode": "COLOURS_1",
        "abilityCodeInstance": "COLOURS_1_a",
        "abilityDependAtomCodes": ["colours"],
        "atomCode": "colours",
        "atomProcessUrl": "/colours/v1/count",
        "k8sHealthcheckUrl": "/colours/v1/health/ping",
        "modelIds": "warm",
        "servingHost": "127.0.0.1",
        "servingPort": str(plane.port),
        "svcAddress": "http://colours.example:8000",
        "somethingNewer": 1,
    }


@pytest.mark.parametrize("said", ["environment", "file"])
def test_a_service_registers_once_beats_every_two_seconds_and_withdraws_first(
    plane: ControlPlane, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = EXAMPLE.read_text()
    if said == "environment":
        monkeypatch.setenv("META", json.dumps(meta(plane)))
    else:
        assert SERVING in text
        there = f'"servingHost": "127.0.0.1", "servingPort": "{plane.port}"'
        text = text.replace(SERVING, there)
    (tmp_path / "server.py").write_text(text)
    reached: list[int] = []

    def withdraws(handler: Handler) -> None:
        reached.append(client.get("/colours/v1/health/ping").status_code)
        handler.say(b'{"code": "0"}')

    plane.faults["unRegister"] = withdraws
    toml = 'registration.start_jitter = "0s"\nregistration.instance = "pod-1"\n'
    arguments = ("--plugins", "linker:./server.py", "--workers", "4", "--drain-delay", "0")
    with live.live(tmp_path, *arguments, toml=toml) as server, server.client() as client:
        plane.wait_for("health", count=4)
        plane.instances.clear()
        again = plane.wait_for("register", count=2)
        plane.wait_for("health", count=len(plane.calls("health")) + 1)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    first, second = plane.calls("register")
    assert first.body == {
        "abilityCode": "COLOURS_1",
        "abilityCodeInstance": "COLOURS_1_a",
        "abilityDependAtomCodes": ["colours"],
        "atomCode": "colours",
        "atomInstanceName": "pod-1",
        "requestUrl": "http://colours.example:8000/colours/v1/count",
    }
    assert second.body == first.body
    beats = [call.at for call in plane.calls("health") if call.at < again.at]
    gaps = [after - before for before, after in pairwise(beats)]
    print("seconds between heartbeats:", " ".join(f"{gap:.3f}" for gap in gaps))
    assert all(1.6 <= gap <= 2.4 for gap in gaps)
    assert len(plane.calls("unRegister")) == 1
    assert plane.heard[-1].name == "unRegister"
    assert reached == [200], "whoever still came then was answered"
