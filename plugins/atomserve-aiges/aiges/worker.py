"""A thread that feeds one session's requests to an object of the wrapper's own."""

from atomserve.compat.aiges.shim.aiges.worker import *  # noqa: F403 - the same objects, under the name that wrappers know
