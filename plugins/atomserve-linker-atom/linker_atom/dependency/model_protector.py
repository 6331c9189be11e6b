"""Sealed models, in the place of upstream's closed format for encrypted ones."""

from atomserve.compat.linker_atom.shim.linker_atom.dependency.model_protector import *  # noqa: F403 - the same objects, under the name that services know
