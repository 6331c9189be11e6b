"""Loggers that never fail."""

from atomserve.compat.aiges.shim.aiges.utils.log import *  # noqa: F403 - the same objects, under the name that wrappers know
