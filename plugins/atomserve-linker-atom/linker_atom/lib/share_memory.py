"""Parts of files that other processes write."""

from atomserve.compat.linker_atom.shim.linker_atom.lib.share_memory import *  # noqa: F403 - the same objects, under the name that services know
