"""The fields by which a wrapper says what it takes and gives."""

from atomserve.compat.aiges.shim.aiges.fields import *  # noqa: F403 - the same objects, under the name that wrappers know
