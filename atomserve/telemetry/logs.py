"""What the server writes about itself: structured log lines and one access record per request."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import msgspec
import structlog

from atomserve.telemetry.file_writer import FileWriter, Kept
from atomserve.telemetry.secrets import MASK, hide_values_of, is_secret, masked, without_secrets
from atomserve.telemetry.sink import Sink

Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]

MOST_TEXT = 2048
"""Longest text in a log line, characters."""
_MOST_TRACE = 16 * 1024
_MOST_ITEMS = 64


def clean(text: str, keep: str = "") -> str:
    """Return ``text``, shortened, with what could forge a line or drive a terminal escaped."""
    if len(text) > MOST_TEXT and not keep:
        text = text[:MOST_TEXT] + "..."
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


class Access(msgspec.Struct, omit_defaults=True, tag_field="event", tag="http.access"):
    """What happened to one request; ``duration_ms`` runs from its head to the end of its answer."""

    timestamp: str
    level: str
    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    bytes_in: int
    bytes_out: int
    client: str
    http_version: str
    route: str = ""
    model: str = ""
    code: str = ""


class AccessLog:
    """Gathers access records, and writes those of a window in one go.

    Nothing runs while there is nothing to write. When the reader of the log is behind, ``most``
    records wait; further ones are counted in ``dropped``.
    """

    # asyncio's call_later, since a task that sleeps would cost more than the records do
    # (benchmarks/guard_overhead.py) and would have to be owned by somebody.

    def __init__(
        self,
        sink: Sink,
        *,
        format: Format = "json",
        write_every: float = 0.05,
        most: int = 10_000,
    ) -> None:
        self._sink = sink
        self._encode = _encode_json if format == "json" else _encode_console
        self._write_every = write_every
        self._most = most
        self._waiting: list[Access] = []
        self._timer: asyncio.TimerHandle | None = None
        self._millis = self._second = 0
        self._prefix = self._stamp = ""
        self.dropped = 0

    def record(
        self,
        *,
        request_id: str,
        method: str,
        path: str,
        status: int,
        duration: float,
        bytes_in: int = 0,
        bytes_out: int = 0,
        client: str = "",
        http_version: str = "",
        route: str = "",
        model: str = "",
        code: str = "",
    ) -> None:
        """Keep the record of a request that has just ended, until the window is written."""
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return
        texts = method, path, client, route, model
        together = "".join(texts)
        if len(together) > MOST_TEXT or not together.isprintable():
            method, path, client, route, model = map(clean, texts)
        self._waiting.append(
            Access(
                self._now(),
                "info",
                request_id,
                method,
                path,
                status,
                round(duration * 1000, 3),
                bytes_in,
                bytes_out,
                client,
                http_version,
                route,
                model,
                code,
            )
        )
        if self._timer is None:
            self._write_later()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return self._timer is None

    def flush(self) -> None:
        """Write what waits, as far as the reader takes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write()

    def _write_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._write_every, self._end_window)

    def _end_window(self) -> None:
        self._timer = None
        self._write()
        if self._waiting or self._sink.stuck:
            self._write_later()

    def _write(self) -> None:
        if self._sink.stuck and not self._sink.write(b""):
            return
        if self._waiting and self._sink.write(self._encode(self._waiting)):
            self._waiting.clear()

    def _now(self) -> str:
        millis = int(time.time() * 1000)
        if millis != self._millis:
            self._millis = millis
            second, rest = divmod(millis, 1000)
            if second != self._second:
                self._second = second
                self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._stamp = f"{self._prefix}.{rest:03d}Z"
        return self._stamp


def _encode_json(records: list[Access]) -> bytes:
    return _encoder.encode_lines(records)


def _encode_console(records: list[Access]) -> bytes:
    return "".join(
        f"{r.timestamp[11:19]} {r.status} {r.method} {r.path} {r.duration_ms:.1f}ms"
        f" {r.bytes_in}>{r.bytes_out}{' ' + r.code if r.code else ''}\n"
        for r in records
    ).encode("utf-8", "backslashreplace")


_encoder = msgspec.json.Encoder()


def _bounded(value: Any) -> Any:
    """Return ``value`` as something that every encoder takes: text, a number, a list of these."""
    if isinstance(value, list | tuple):
        return [_bounded_item(item) for item in value[:_MOST_ITEMS]]
    return _bounded_item(value)


def _said(name: str, value: Any) -> Any:
    """Return ``value`` bounded; one with the name of a secret is masked, unless it is a number."""
    if is_secret(name) and not isinstance(value, int | float | None):
        return MASK
    return _bounded(value)


def _bounded_item(value: Any) -> str | int | float | None:
    if value is None or value is True or value is False:
        return value
    try:
        if isinstance(value, str):
            return masked(clean(str(value)))
        if isinstance(value, float):
            return float(value)
        if isinstance(value, int):
            return int(value) if value.bit_length() < 64 else clean(hex(value))
        return masked(clean(repr(without_secrets(value))))
    except Exception:  # noqa: BLE001 - a stranger's __repr__ must not end whoever logs
        return f"<{type(value).__name__}>"


def _bound(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace = event.pop("exception", "")
    bounded: dict[str, Any] = {
        "timestamp": event.pop("timestamp"),
        "level": event.pop("level"),
        "event": masked(clean(str(event.pop("event", "")))),
    }
    bounded.update((clean(str(name)), _said(str(name), value)) for name, value in event.items())
    if trace:
        bounded["exception"] = masked(clean(str(trace)[-_MOST_TRACE:], keep="\n\t"))
    return bounded


def _as_json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    return _encoder.encode(event)


class _Lines:
    """The innermost logger: structlog calls it by the level's name with the rendered line."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, line: str | bytes) -> None:
        if isinstance(line, str):
            line = line.encode("utf-8", "backslashreplace")
        self._sink.line(line)

    debug = info = warning = error = critical = msg


class _Bridge(logging.Handler):
    """Carries what libraries say through the standard library's logging into structlog."""

    def __init__(self, files: FileWriter | None) -> None:
        super().__init__()
        self._files = files

    def flush(self) -> None:
        """Wait a moment for the log files; `logging.shutdown` calls this when the process ends."""
        if self._files is not None:
            self._files.flush()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # a library's format string and arguments disagree
            said = str(record.msg)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        log = structlog.get_logger()
        log.log(level, said, logger=record.name, exc_info=record.exc_info)


def configure_logging(
    format: Format = "json",
    level: Level = "info",
    *,
    stream: TextIO | None = None,
    kept: Kept | None = None,
) -> Sink:
    """Send structlog's and the standard library's records to ``stream`` (stderr), line by line.

    They go to the files that ``kept`` describes, too. Returns the sink, for the access log.
    """
    target = stream or sys.stderr
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    hide_values_of(os.environ)
    files = FileWriter.of(kept) if kept is not None else None
    sink = Sink(target.fileno(), also=files.write if files else None)
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = _as_json
    if format == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=target.isatty() and files is None,
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _bound,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(sink),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge(files))
    root.setLevel(number)
    return sink
