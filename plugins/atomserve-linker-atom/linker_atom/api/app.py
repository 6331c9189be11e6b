"""The application that a service adds its routes to."""

from atomserve.compat.linker_atom.shim.linker_atom.api.app import *  # noqa: F403 - the same objects, under the name that services know
