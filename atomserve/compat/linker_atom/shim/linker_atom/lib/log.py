"""The logger that services share: what is logged goes where the process's logging sends it."""

import logging

from atomserve.compat.linker_atom.shim.linker_atom.config import settings
from atomserve.telemetry.shown import cut

_CONTAINERS = (dict, list, tuple, bytes, bytearray)


class _Cut(logging.Filter):
    """Cuts and masks what is logged as a table or a list; texts are bounded by who writes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, _CONTAINERS):
            record.msg, record.args = str(cut(record.msg)), ()
        return True


logger = logging.getLogger(settings.log_config.log_dir)
logger.addFilter(_Cut())


def show_here() -> None:
    """Let what is logged be seen where nobody has set up logging: in a script run by hand."""
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())
        logger.setLevel(logging.DEBUG)
