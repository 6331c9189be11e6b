"""The base class of wrappers, with the fields that describe them."""

from atomserve.compat.aiges.shim.aiges.sdk import *  # noqa: F403 - the same objects, under the name that wrappers know
