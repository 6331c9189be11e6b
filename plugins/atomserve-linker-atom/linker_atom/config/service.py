"""The settings of a service as one document."""

from atomserve.compat.linker_atom.shim.linker_atom.config.service import *  # noqa: F403 - the same objects, under the name that services know
