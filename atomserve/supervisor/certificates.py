"""Certificate and key tried out before anything is started that would serve with them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from atomserve.errors import ConfigError
from atomserve.settings import Settings


def check_certificate(settings: Settings) -> None:
    """Do nothing if TLS is not asked for, or will work.

    Raises:
        ConfigError: a file cannot be read, or the two do not belong together.
    """
    if settings.certfile is None:
        return
    certfile, keyfile = settings.certfile, settings.keyfile or settings.certfile
    for setting, path in (("certfile", certfile), ("keyfile", keyfile)):
        try:
            Path(path).open("rb").close()
        except OSError as exc:
            raise ConfigError(f"{setting}: cannot use {path}: {exc.strerror}") from exc

    import ssl  # the supervisor stays small where nobody asks for TLS

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except ssl.SSLError as exc:
        files = f"{certfile} with keyfile {keyfile}"
        why = "the key is not this certificate's" if "MISMATCH" in str(exc) else "not valid PEM"
        raise ConfigError(f"certfile: cannot use {files}: {why}") from exc


def _no_password() -> NoReturn:
    raise ConfigError("keyfile: is encrypted, and nobody is there to give its password")
