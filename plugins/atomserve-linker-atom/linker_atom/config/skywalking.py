"""What a service is told of SkyWalking; the agent is started by the server."""

from atomserve.compat.linker_atom.shim.linker_atom.config.skywalking import *  # noqa: F403 - the same objects, under the name that services know
