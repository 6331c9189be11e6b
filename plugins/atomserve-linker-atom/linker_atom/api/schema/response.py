"""Documents that services answer with: the envelope of results and errors, detections."""

from atomserve.compat.linker_atom.shim.linker_atom.api.schema.response import *  # noqa: F403 - the same objects, under the name that services know
