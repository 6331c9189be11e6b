"""Small things that services use: timed and caught calls, values cut short, a cache."""

from atomserve.compat.linker_atom.shim.linker_atom.lib.common import *  # noqa: F403 - the same objects, under the name that services know
