"""HTTP calls that end after 30 s unless told otherwise, both sides logged."""

from atomserve.compat.linker_atom.shim.linker_atom.lib.requests import *  # noqa: F403 - the same objects, under the name that services know
