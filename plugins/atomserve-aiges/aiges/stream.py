"""Sessions in threads, for stream wrappers."""

from atomserve.compat.aiges.shim.aiges.stream import *  # noqa: F403 - the same objects, under the name that wrappers know
