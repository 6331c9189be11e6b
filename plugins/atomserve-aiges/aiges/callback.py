"""The callback with a session's handle and its sid."""

from atomserve.compat.aiges.shim.aiges.callback import *  # noqa: F403 - the same objects, under the name that wrappers know
