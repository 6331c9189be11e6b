"""The example answers as its clients expect, imported as it would be to be served."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent
ROOT = EXAMPLES.parent.parent

# Beside the names of linker_atom, one that is gone from uvicorn is supplied where files are served.
CALL = """
import importlib.util, json, sys
import uvicorn.loops.auto
from atomserve.compat.linker_atom.finder import install

install()
vars(uvicorn.loops.auto).setdefault("auto_loop_setup", lambda *_: None)
sys.argv = ["server.py", "--port", "9000"]
spec = importlib.util.spec_from_file_location("server", "server.py")
server = importlib.util.module_from_spec(spec)
sys.modules["server"] = server
spec.loader.exec_module(server)

from starlette.testclient import TestClient

with TestClient(server.app) as client:
    found = []
    for method, path, body in json.loads(sys.stdin.read()):
        answer = client.request(method, path, json=body)
        found.append([answer.status_code, answer.json()])
print(json.dumps([server.args.port, found]))
"""


def call(*requests: tuple[str, str, Any], **environ: str) -> tuple[int, Any]:
    """Import the service as ``environ`` has it, start it, and return its answers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATOM")}
    clean.pop("META", None)
    done = subprocess.run(
        [sys.executable, "-B", "-c", CALL],
        cwd=EXAMPLES,
        env=clean | {"PYTHONPATH": str(ROOT)} | environ,
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    port, answers = json.loads(done.stdout.splitlines()[-1])
    return port, answers


@pytest.mark.timeout(60)
def test_the_service_counts_with_the_models_that_meta_names() -> None:
    counted = {"model": "warm", "pixels": [[250, 0, 0], [255, 250, 9], [255, 1, 1]]}
    port, answers = call(
        ("GET", "/colours/v1/health/ping", None),
        ("POST", "/colours/v1/count", counted),
        ("POST", "/colours/v1/count", {"model": "none", "pixels": []}),
        ("POST", "/colours/v1/count", {"model": "warm", "pixels": [[1]]}),
    )
    assert port == 9000
    alive, found, missing, invalid = answers
    assert alive == [200, {"is_alive": True}]
    assert found == [200, {"code": 0, "msg": "Success", "data": {"red": 2, "yellow": 1}}]
    assert missing[0] == missing[1]["code"] == 514
    assert invalid[0] == invalid[1]["code"] == 422


@pytest.mark.timeout(60)
def test_the_environment_is_stronger_than_what_the_file_sets() -> None:
    counted = {"model": "warm", "pixels": []}
    _, answers = call(
        ("GET", "/v1/health/ping", None),
        ("POST", "/other/v1/count", counted),
        ATOM_API_PREFIX="/other",
        META='{"modelIds": "cold"}',
    )
    assert answers[0] == [200, {"is_alive": True}]
    assert answers[1][0] == 514
