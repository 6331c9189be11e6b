"""What the supervisor orders of an API process, in a real instance."""

from __future__ import annotations

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
