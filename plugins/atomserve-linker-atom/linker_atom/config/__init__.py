"""What a service knows of its deployment: read from the environment when first imported."""

from atomserve.compat.linker_atom.shim.linker_atom.config import *  # noqa: F403 - the same objects, under the name that services know
