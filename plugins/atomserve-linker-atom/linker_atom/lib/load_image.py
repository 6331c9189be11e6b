"""Pictures by URL, path, base64 or part of a file."""

from atomserve.compat.linker_atom.shim.linker_atom.lib.load_image import *  # noqa: F403 - the same objects, under the name that services know
