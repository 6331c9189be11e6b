"""How many files the processes of an instance may open."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import pytest
from faults import faulty


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_the_servers_processes_may_open_what_the_system_lets_them(tmp_path: Path) -> None:
    prefix = ["sh", "-c", 'ulimit -S -n 300; exec "$@"', "sh"]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with faulty(tmp_path, {"it": "Fault"}, prefix=prefix) as it:
        (api,) = it.children("api")
        for process in (psutil.Process(it.pid), api):
            assert process.rlimit(resource.RLIMIT_NOFILE) == (most, most)
        # A plugin may not bear numbers over those that its select() takes.
        (worker,) = it.children("worker")
        assert worker.rlimit(resource.RLIMIT_NOFILE) == (300, most)
