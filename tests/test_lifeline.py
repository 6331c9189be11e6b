"""A child leaves with its own exit code, whatever its plugin has done to the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = {
    "no streams": "sys.stdout = sys.stderr = None",
    "streams of its own": "sys.stdout = object()",
    "a closed stream": "sys.stdout.close()",
    "a stream that raises": """
class Stream:
    def flush(self):
        raise KeyboardInterrupt
sys.stderr = Stream()""",
    "a log that raises": """
class Handler(logging.Handler):
    def flush(self):
        raise RuntimeError
kept = Handler()""",
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_child_leaves_whatever_its_plugin_did(name: str) -> None:
    code = f"import logging, sys\nfrom atomserve import lifeline\n{BEFORE[name]}\nlifeline.leave(7)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
