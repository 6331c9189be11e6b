"""The constants under the name that they had before release 0.6."""

from atomserve.compat.aiges.shim.aiges.types import *  # noqa: F403 - the same objects, under the name that wrappers know
