"""The exit codes of an instance and of its processes, apart from 0."""

from __future__ import annotations

CRASHED = 1
"""A child's: it cannot go on."""
CONFIG = 2
"""A setting, a flag or a plugin is wrong."""
CRASH_LOOP = 3
"""A process died more often than it is restarted."""
PORT_BUSY = 98
"""Someone else listens there (the number of EADDRINUSE)."""
INTERRUPTED = 130
"""Ctrl-C, before anything ran."""
