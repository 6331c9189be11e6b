"""The logger that services share: what is logged goes where the process's logging sends it."""

from atomserve.compat.linker_atom.shim.linker_atom.lib.log import *  # noqa: F403 - the same objects, under the name that services know
