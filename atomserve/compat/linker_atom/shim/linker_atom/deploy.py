"""The start of a service from its `nginx_run.py`: here it is the server's own."""

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

from atomserve.configuration.load import load_settings
from atomserve.errors import ConfigError

SERVICE = "linker:./server.py"
EVERYWHERE = "0.0.0.0"
"""What the script has always listened on: it is a deployment's, made to be reached."""


def nginx_run() -> NoReturn:
    """Serve the `server.py` of the current folder, in place of this process.

    There is no nginx: the server's own processes share the port. Settings are read as by
    `atomserve run`, and where none names a host, it is every address, as nginx had it.
    """
    command = run_command(os.environ)
    os.execv(command[0], command)


def run_command(environ: Mapping[str, str]) -> list[str]:
    """Return the command that serves; settings that are wrong are left for it to tell of."""
    command = [sys.executable, "-m", "atomserve", "run"]
    try:
        loaded = load_settings(config_file=None, environ=environ, flags={})
    except ConfigError:
        return command
    if not loaded.settings.plugins:
        command += ["--plugins", SERVICE]
    if loaded.origins["host"] == "default" and not loaded.settings.uds:
        command += ["--host", EVERYWHERE]
    return command
