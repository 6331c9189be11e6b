"""What costs nothing: an import, a listing, a server that nobody asks."""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import live
import pytest

RUNS = 7
IDLE = 30.0


def seconds(code: str) -> tuple[float, float]:
    """Return the time that a program takes: on the clock, and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=live.ROOT, env=live.environment())
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(code: str) -> list[float]:
    runs = [seconds(code) for _ in range(RUNS)]
    return [statistics.median(column) * 1000 for column in zip(*runs, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_what_a_plugin_imports_takes_at_most_150_ms() -> None:
    code = "from atomserve import Wrapper, Tensor"
    seconds(code)  # compiles what is not compiled yet
    empty, full = medians("pass"), medians(code)
    clock, processor = (more - less for more, less in zip(full, empty, strict=True))
    print(f"import of Wrapper and Tensor: {clock:.0f} ms, {processor:.0f} ms of the processor")
    assert clock <= 150


def test_what_a_plugin_imports_is_little() -> None:
    code = "import sys; from atomserve import Wrapper, Tensor; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=live.ROOT,
        env=live.environment(),
        capture_output=True,
        text=True,
    )
    heavy = {
        "starlette",
        "hypercorn",
        "h2",
        "PIL",
        "typer",
        "rich",
        "structlog",
        "anyio",
        "asyncio",
    }
    assert not heavy & set(found.stdout.split())


def test_listing_plugins_imports_none(tmp_path: Path) -> None:
    (tmp_path / "poison.py").write_text("raise SystemExit('poison was imported')\n")
    info = tmp_path / "poison-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poison\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[atomserve.plugins]\npoison = poison:Class\n")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "atomserve", "plugins"],
        cwd=tmp_path,
        env=live.environment() | {"PYTHONPATH": f"{live.ROOT}{os.pathsep}{tmp_path}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "poison:Class" in done.stdout
    assert "echo" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"poison", "atomserve_echo", "atomserve_ocr", "numpy"} & imported


def threads(pid: int) -> list[Path]:
    """Return the threads of a process and of all its children."""
    found = list(Path(f"/proc/{pid}/task").iterdir())
    children = " ".join((thread / "children").read_text() for thread in found).split()
    return found + [each for child in children for each in threads(int(child))]


def cpu_seconds(pid: int) -> float:
    """Return what a process and its children have run so far, to the nanosecond."""
    return sum(int((thread / "schedstat").read_text().split()[0]) / 1e9 for thread in threads(pid))


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_an_idle_server_takes_at_most_a_thousandth_of_a_core(tmp_path: Path) -> None:
    plugins = ",".join(live.ECHOES)
    with live.live(tmp_path, "--plugins", plugins) as server:
        with server.client() as client:
            assert client.get("/readyz").status_code == 200
        time.sleep(3)  # connections close, what was loaded settles
        pid = server.process.pid
        before, began = cpu_seconds(pid), time.monotonic()
        assert before > 0.1  # it is seen at all, its children too
        time.sleep(IDLE)
        used = cpu_seconds(pid) - before
        share = used / (time.monotonic() - began)
    print(f"idle: {used * 1000:.2f} ms in {IDLE:g} s, {share:.4%} of a core")
    assert share <= 0.001
