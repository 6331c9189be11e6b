"""``atomserve run``: serve plugins until told to stop."""

from __future__ import annotations

from atomserve.cli.flags import Loaded, with_settings


@with_settings
def run(loaded: Loaded) -> int:
    """Serve plugins over HTTP/1.1 and HTTP/2 until Ctrl-C or SIGTERM.

    Try:

    - `atomserve run --plugins ocr`
    - `atomserve run --plugins ./model.py --port 0`
    - `atomserve run --plugins en=ocr,package.module:Class --certfile cert.pem --keyfile key.pem`
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
    with Progress(settings) as progress:
        return supervisor.run(settings, sources, on_event=progress)
