"""The scripts do all that they say from a bare clone, and leave nothing outside of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("not in a git clone")
    # What is not committed yet counts too.
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            target = tmp_path / "clone" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    for folder in ("home", "tmp"):
        (tmp_path / folder).mkdir()
    return tmp_path / "clone"


def run(clone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {
        "HOME": str(clone.parent / "home"),
        "TMPDIR": str(clone.parent / "tmp"),
        # pip asks rustc for its version, and rustup keeps a folder for that.
        "RUSTUP_HOME": str(clone.parent / "rustup"),
    }
    return subprocess.run(
        command,
        cwd=clone.parent,
        env=kept | own,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_reads_its_picture_from_a_bare_clone(clone: Path) -> None:
    done = run(clone, "clone/scripts/demo", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ATOM TEA HOUSE" in done.stdout
    assert "原子茶馆" in done.stdout
    assert "curl --data-binary @plugins/ocr/" in done.stdout
    assert not list((clone.parent / "home").iterdir())
    assert not list((clone.parent / "tmp").iterdir())


def test_a_machine_without_a_new_enough_python_is_told_in_one_line(
    clone: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or "")
    done = run(clone, "env", f"PATH={tools}", "clone/scripts/test")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "scripts: error: needs Python 3.11 or newer (apt-get install python3 python3-venv)"
    ]
