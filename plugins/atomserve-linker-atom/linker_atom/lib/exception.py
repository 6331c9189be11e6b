"""The errors that services raise by number, with the texts that their clients know."""

from atomserve.compat.linker_atom.shim.linker_atom.lib.exception import *  # noqa: F403 - the same objects, under the name that services know
