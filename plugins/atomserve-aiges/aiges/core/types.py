"""The constants that wrappers import with a star."""

from atomserve.compat.aiges.shim.aiges.core.types import *  # noqa: F403 - the same objects, under the name that wrappers know
