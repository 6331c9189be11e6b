"""The names of linker_atom for scripts, as pip installs them."""

import os
import pkgutil
import subprocess
import sys
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the distribution, which this process does not see."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-compile", "--target")
    command = [sys.executable, "-m", "pip", "install", *options, str(folder), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def python(*arguments: str, place: Path, cwd: Path, code: int = 0, **environ: str) -> str:
    path = os.pathsep.join([str(place), str(ROOT)])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATOM")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=clean | {"PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(60)
def test_every_name_is_the_same_object_as_in_a_served_file(place: Path, tmp_path: Path) -> None:
    from atomserve.compat.linker_atom import shim

    found = pkgutil.walk_packages(shim.__path__, f"{shim.__name__}.")
    names = [each.name.removeprefix(f"{shim.__name__}.") for each in found]
    assert {"linker_atom", "linker_atom.api.app", "linker_atom.lib.exception"} <= set(names)
    python("-c", SAME, *names, place=place, cwd=tmp_path)


@pytest.mark.timeout(60)
def test_the_start_script_is_the_server_and_tells_of_its_errors(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "nginx_run.py").write_text(START)
    told = python("nginx_run.py", place=place, cwd=tmp_path, code=2, ATOM_PORT="eighty")
    assert "port = 'eighty' (environment ATOM_PORT)" in told
    told = python("nginx_run.py", place=place, cwd=tmp_path, code=2)
    assert "server.py" in told
