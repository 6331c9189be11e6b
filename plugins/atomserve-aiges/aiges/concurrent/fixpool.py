"""A pool of a fixed size."""

from atomserve.compat.aiges.shim.aiges.concurrent.fixpool import *  # noqa: F403 - the same objects, under the name that wrappers know
