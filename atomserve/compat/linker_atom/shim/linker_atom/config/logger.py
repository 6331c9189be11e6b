"""Where a service's log goes."""

from pydantic import BaseModel

from atomserve.compat.linker_atom.variables import Variables


class LoggerConfig(BaseModel):
    """How many log files are kept, of which size; their folder's name is the logger's, too."""

    log_backup_count: int = 30
    log_dir: str = "atom"
    log_file_max_bytes: int = 100 << 20


def read_logger_config(variables: Variables) -> LoggerConfig:
    """Read the LOG_* variables."""
    usual = LoggerConfig()
    return LoggerConfig(
        log_backup_count=variables.number("LOG_BACKUP_COUNT", usual.log_backup_count),
        log_dir=variables.text("LOG_DIR", usual.log_dir),
        log_file_max_bytes=variables.number("LOG_FILE_MAX_BYTES", usual.log_file_max_bytes),
    )
