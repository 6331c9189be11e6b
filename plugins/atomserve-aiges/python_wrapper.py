"""The base class and the objects of the third generation of wrappers."""

from atomserve.compat.aiges.shim.python_wrapper import *  # noqa: F403 - the same objects, under the name that wrappers know
