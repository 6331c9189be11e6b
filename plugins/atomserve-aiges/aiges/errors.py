"""The loader's own error codes."""

from atomserve.compat.aiges.shim.aiges.errors import *  # noqa: F403 - the same objects, under the name that wrappers know
