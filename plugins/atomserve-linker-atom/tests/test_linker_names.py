"""The names of linker_atom for scripts, as they are where the distribution is installed."""

import itertools
import json
import os
import pkgutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
ROOT = PROJECT.parent.parent

SAME = """
import importlib, sys, types
for name in sys.argv[1:]:
    given = importlib.import_module(name)
    home = importlib.import_module(f"atomserve.compat.linker_atom.shim.{name}")
    public = [each for each in vars(home) if each[0] != "_"]
    for word in getattr(home, "__all__", public):
        if isinstance(getattr(home, word), types.ModuleType):
            continue
        assert getattr(given, word) is getattr(home, word), (name, word)
"""
START = "from linker_atom.deploy import nginx_run\n\nif __name__ == '__main__':\n    nginx_run()\n"


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(PROJECT), str(ROOT)])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATOM")}
    clean.pop("META", None)
    return clean | {"PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200"}


def python(*arguments: str, cwd: Path, code: int = 0, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment() | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_installed_distribution_holds_every_module(tmp_path: Path) -> None:
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-compile", "--target")
    command = [sys.executable, "-m", "pip", "install", *options, str(tmp_path), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = {path.relative_to(tmp_path) for path in (tmp_path / "linker_atom").rglob("*.py")}
    assert held == {path.relative_to(PROJECT) for path in (PROJECT / "linker_atom").rglob("*.py")}


@pytest.mark.timeout(60)
def test_every_name_is_the_same_object_as_in_a_served_file(tmp_path: Path) -> None:
    from atomserve.compat.linker_atom import shim

    found = pkgutil.walk_packages(shim.__path__, f"{shim.__name__}.")
    names = [each.name.removeprefix(f"{shim.__name__}.") for each in found]
    assert {"linker_atom", "linker_atom.api.app", "linker_atom.lib.exception"} <= set(names)
    python("-c", SAME, *names, cwd=tmp_path)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.timeout(60)
def test_the_start_script_is_the_server() -> None:
    port = free_port()
    deployed = {"ATOM_PORT": str(port), "ATOM_WORKERS": "2", "ATOMSERVE_HOST": "127.0.0.1"}
    server = subprocess.Popen(
        [sys.executable, "-B", "nginx_run.py"],
        cwd=ROOT / "plugins" / "linker-examples",
        env=environment() | deployed | {"ATOMSERVE_DRAIN_DELAY": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    with server, server.stdout as lines:
        try:
            until_ready = list(itertools.takewhile(lambda line: line != "Ready:\n", lines))
            assert sum("loaded warm" in line for line in until_ready) == 2
            url = f"http://127.0.0.1:{port}/colours/v1/health/ping"
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert json.load(answer) == {"is_alive": True}
            server.terminate()
            assert "Stopped." in lines.read()
        finally:
            server.kill()
    assert server.returncode == 0


@pytest.mark.timeout(60)
def test_the_start_script_tells_what_is_wrong_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "nginx_run.py").write_text(START)
    told = python("nginx_run.py", cwd=tmp_path, code=2, ATOM_PORT="eighty")
    assert "port = 'eighty' (environment ATOM_PORT)" in told
