"""What the supervisor orders of an API process, in a real instance."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import live

SLOW = """
import sys, time
from pathlib import Path

from atomserve import Wrapper

if "hypercorn" in sys.modules:  # in the API process; its worker has been here before
    Path("importing").touch()
    while True:
        time.sleep(0.01)


class Slow(Wrapper):
    executor = "thread"

    def predict(self) -> int:
        return 1
"""
PROMPT = """
import time
from pathlib import Path

from atomserve import Wrapper


class Prompt(Wrapper):
    def load(self, config: dict) -> None:
        while not Path("importing").exists():
            time.sleep(0.01)

    def predict(self) -> int:
        return 2
"""


def test_an_import_in_the_api_process_holds_up_no_order(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "prompt.py").write_text(PROMPT)
    plugins = "./slow.py:Slow,./prompt.py:Prompt"
    flags = ("--drain-delay", "0")
    toml = 'readiness = "any"\n'
    with live.running(tmp_path, "--plugins", plugins, *flags, toml=toml) as server:
        server.await_line(lambda line: line.startswith("  prompt: ready"))
        with server.client() as client:
            while client.get("/readyz/prompt").status_code != 200:
                time.sleep(0.01)
            assert client.post("/v1/models/prompt/predict", json={}).json() == 2
            assert client.get("/readyz/slow").status_code == 404
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


GROWS = """
from atomserve import Wrapper


class Grows(Wrapper):
    timeout = {timeout}

    def predict(self, {inputs}) -> int:
        return a + b
"""


def test_a_model_that_changed_is_served_and_described_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "grows.py"
    file.write_text(GROWS.format(timeout=20, inputs="a: int, b: int"))
    path = "/v1/models/grows"
    with live.live(tmp_path, "--plugins", "./grows.py:Grows") as server, server.client() as client:
        assert client.post(f"{path}/predict", json={"a": 1}).status_code == 422
        found = client.get(path).json()
        file.write_text(GROWS.format(timeout=30, inputs="a: int, b: int = 5"))
        os.kill(found["slots"][0]["pid"], signal.SIGKILL)
        while (now := client.get(path).json())["timeout"] != 30 or now["state"] != "ready":
            time.sleep(0.02)
        assert [field["required"] for field in now["signature"]["inputs"]] == [True, False]
        assert client.post(f"{path}/predict", json={"a": 1}).json() == 6
