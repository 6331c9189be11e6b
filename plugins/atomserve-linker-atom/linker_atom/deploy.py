"""The start of a service from its `nginx_run.py`: here it is the server's own."""

from atomserve.compat.linker_atom.shim.linker_atom.deploy import *  # noqa: F403 - the same objects, under the name that services know
