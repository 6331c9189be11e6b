"""Where a service's log goes."""

from atomserve.compat.linker_atom.shim.linker_atom.config.logger import *  # noqa: F403 - the same objects, under the name that services know
