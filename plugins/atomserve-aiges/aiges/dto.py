"""The objects that requests and results are made of."""

from atomserve.compat.aiges.shim.aiges.dto import *  # noqa: F403 - the same objects, under the name that wrappers know
