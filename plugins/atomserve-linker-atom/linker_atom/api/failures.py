"""Failures as services answer them: one envelope, and no word of what a bug says of itself."""

from atomserve.compat.linker_atom.shim.linker_atom.api.failures import *  # noqa: F403 - the same objects, under the name that services know
