"""Runs code that imports linker_atom's names, in a process of its own with an environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# What is gone from uvicorn is supplied to hosted files alone; here, by hand.
PREAMBLE = """
import uvicorn.loops.auto
from atomserve.compat.linker_atom.finder import install
install()
if not hasattr(uvicorn.loops.auto, "auto_loop_setup"):
    uvicorn.loops.auto.auto_loop_setup = lambda *_: None
"""


def run(
    code: str, *arguments: str, cwd: Path = ROOT, code_expected: int = 0, **environ: str
) -> str:
    """Run ``code`` and return what it printed on either stream."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ATOM", "LOG_", "SW_", "META", "PROFILING", "DOCS", "HOST_NODE"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code, *arguments],
        cwd=cwd,
        env=clean | {"PYTHONPATH": str(ROOT)} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == code_expected, done.stdout
    return done.stdout
