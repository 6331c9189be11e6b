"""The names of AIGES for scripts, as pip installs them."""

import os
import pkgutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
ROOT = PROJECT.parent.parent

WRAPPER = """
from aiges_embed import Response, ResponseData
from aiges.sdk import StringBodyField, WrapperBase
from aiges.utils.log import log


class UserRequest:
    input1 = StringBodyField(key="text", value=b"hello")


class UserResponse:
    accept1 = StringBodyField(key="result")


class Wrapper(WrapperBase):
    serviceId = "shout"
    requestCls = UserRequest()
    responseCls = UserResponse()

    def wrapperInit(self, config):
        return 0

    def wrapperOnceExec(self, params, reqData):
        return Response([ResponseData("result", reqData.get("text").data.upper())])


if __name__ == "__main__":
    m = Wrapper()
    m.schema()
    m.run()
"""

SAME = """
import importlib, sys, types
for name in sys.argv[1:]:
    given = importlib.import_module(name)
    home = importlib.import_module(f"atomserve.compat.aiges.shim.{name}")
    public = [each for each in vars(home) if each[0] != "_"]
    for word in getattr(home, "__all__", public):
        if isinstance(getattr(home, word), types.ModuleType):
            continue
        assert getattr(given, word) is getattr(home, word), (name, word)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the distribution, which this process does not see."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-compile", "--target")
    command = [sys.executable, "-m", "pip", "install", *options, str(folder), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def python(*arguments: str, place: Path, cwd: Path, code: int = 0) -> str:
    path = os.pathsep.join([str(place), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(60)
def test_every_name_is_the_same_object_as_in_a_worker(place: Path, tmp_path: Path) -> None:
    from atomserve.compat.aiges import shim

    found = pkgutil.walk_packages(shim.__path__, f"{shim.__name__}.")
    names = [each.name.removeprefix(f"{shim.__name__}.") for each in found]
    assert {"aiges", "aiges.core.types", "aiges_embed", "python_wrapper"} <= set(names)
    python("-c", SAME, *names, place=place, cwd=tmp_path)


@pytest.mark.timeout(60)
def test_a_wrapper_runs_as_a_script_and_is_checked_all_the_same(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "wrapper.py").write_text(WRAPPER)
    told = python("wrapper.py", place=place, cwd=tmp_path)
    assert '"route": "/v1/private/shout"' in told
    assert "the wrapper has been verified" in told
    told = python("-m", "atomserve", "check", "aiges:wrapper.py", place=place, cwd=tmp_path)
    assert "HELLO" in told


@pytest.mark.timeout(60)
def test_the_module_creates_and_packs_projects(place: Path, tmp_path: Path) -> None:
    python("-m", "aiges", "create", "-n", "music", place=place, cwd=tmp_path)
    told = python("wrapper.py", place=place, cwd=tmp_path / "music" / "wrapper")
    assert "the wrapper has been verified" in told
    python("-m", "aiges", "pack", "-l", "music", "-o", "a.tar.gz", place=place, cwd=tmp_path)
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        assert "wrapper/wrapper.py" in archive.getnames()
    assert python("-m", "aiges", "--version", place=place, cwd=tmp_path).startswith("aiges 0.16.0")
    assert "usage:" in python("-m", "aiges", place=place, cwd=tmp_path, code=2)
