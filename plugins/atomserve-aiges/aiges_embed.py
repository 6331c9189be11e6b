"""The names that the C++ loader supplied."""

from atomserve.compat.aiges.shim.aiges_embed import *  # noqa: F403 - the same objects, under the name that wrappers know
