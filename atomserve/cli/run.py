"""``atomserve run``: serve plugins until told to stop."""

from __future__ import annotations

import sys

from atomserve.cli.flags import Loaded, with_settings


@with_settings
def run(loaded: Loaded) -> int:
    """Serve plugins over HTTP/1.1 and HTTP/2 until Ctrl-C or SIGTERM.

    Try:

    - `atomserve run --plugins ocr`
    - `atomserve run --plugins ./model.py --port 0`
    - `atomserve run --plugins en=ocr,package.module:Class --certfile cert.pem --keyfile key.pem`
    - `atomserve run --plugins linker:./server.py --host 0.0.0.0`
    """
    import structlog

    from atomserve.cli.progress import Progress
    from atomserve.plugins import installed, loaders, resolve
    from atomserve.supervisor import supervisor
    from atomserve.telemetry.logs import configure_logging
    from atomserve.telemetry.skywalking import warn_if_unusable

    settings = loaded.settings
    sources = resolve(settings, installed(), loaders())
    configure_logging(settings.log_format, settings.log_level, kept=settings.logs)
    for warning in loaded.warnings:
        structlog.get_logger("atomserve.settings").warning("settings.ignored", reason=warning)
    warn_if_unusable(settings.skywalking)
    if any(source.loader == "linker" for source in sources if source.kind == "app"):
        advise(loaded)
    with Progress(settings) as progress:
        return supervisor.run(settings, sources, on_event=progress)


def advise(loaded: Loaded) -> None:
    """Say what a service of linker_atom is used to and does not get unasked."""
    if loaded.settings.uds is None and loaded.origins["host"] == "default":
        print(
            f"Only this machine reaches {loaded.settings.host}; linker_atom listened on all "
            "addresses: say --host 0.0.0.0, or ATOMSERVE_HOST=0.0.0.0.",
            file=sys.stderr,
            flush=True,
        )
