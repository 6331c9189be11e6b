"""What the control plane has handed down, under the names that services know."""

from atomserve.compat.linker_atom.shim.linker_atom.config.serving import *  # noqa: F403 - the same objects, under the name that services know
