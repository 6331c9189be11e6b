"""What a service knows of its deployment: read from the environment when first imported."""

import os

from atomserve.compat.linker_atom.shim.linker_atom.config.logger import LoggerConfig
from atomserve.compat.linker_atom.shim.linker_atom.config.service import Settings, read_settings
from atomserve.compat.linker_atom.shim.linker_atom.config.serving import ServingConfig
from atomserve.compat.linker_atom.shim.linker_atom.config.skywalking import SkyWalkingConfig

__all__ = ["LoggerConfig", "ServingConfig", "Settings", "SkyWalkingConfig", "settings"]

# At import, as services rely on it: they set variables and import this afterwards.
settings = read_settings(os.environ)
