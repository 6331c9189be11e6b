"""Routes whose requests are told in the log, and profiled where the operator says so."""

from atomserve.compat.linker_atom.shim.linker_atom.api.base import *  # noqa: F403 - the same objects, under the name that services know
