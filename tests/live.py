"""Runs `python -m atomserve run` as its users do: a process with a settings file and signals."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parent.parent

ECHOES = (
    "echo",
    "echo_async",
    "echo_audio",
    "echo_blob",
    "echo_image",
    "echo_points",
    "echo_session",
    "echo_stream",
    "echo_tensor",
    "echo_text",
    "echo_tiny",
    "echo_video",
)
"""Every echo plugin that answers at once."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "atomserve", *arguments]


def environment() -> dict[str, str]:
    kept = "ATOMSERVE_SERVER"  # set by pytest's own --http-server
    clean = {
        name: value
        for name, value in os.environ.items()
        if name == kept or not name.startswith("ATOM")
    }
    return clean | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


class Live:
    """One running server; ``printed`` and ``logged`` are its lines so far."""

    def __init__(self, folder: Path, arguments: Sequence[str], prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, *command("run", "--port", "0", *arguments)],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.printed: list[str] = []
        self.logged: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines))
            for stream, lines in (
                (self.process.stdout, self.printed),
                (self.process.stderr, self.logged),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def await_line(self, found: Callable[[str], bool], *, within: float = 15.0) -> str:
        """Return the first line, printed or logged, that ``found`` accepts."""
        deadline = time.monotonic() + within
        with self._news:
            while True:
                for line in (*self.printed, *self.logged):
                    if found(line):
                        return line
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None and not any(
                    reader.is_alive() for reader in self._readers
                )
                assert left > 0, f"no such line: {self.printed} {self.logged}"
                assert not ended, f"ended without: {self.printed} {self.logged}"
                self._news.wait(min(left, 0.5))

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return the log's records of one kind so far."""
        told = f'"event":"{event}"'  # thousands of lines need not be decoded to find a few
        lines = [json.loads(line) for line in list(self.logged) if told in line]
        return [line for line in lines if line["event"] == event]

    def await_record(self, event: str, *, within: float = 5.0, **facts: Any) -> dict[str, Any]:
        told = f'"event":"{event}"'

        def fits(line: str) -> bool:
            record = json.loads(line) if told in line and line.startswith("{") else {}
            return {"event": event, **facts}.items() <= record.items()

        found: dict[str, Any] = json.loads(self.await_line(fits, within=within))
        return found

    def await_ready(self, *, within: float = 15.0) -> None:
        self.await_line(lambda line: line.startswith("Ready"), within=within)

    @property
    def url(self) -> str:
        return self.await_line(lambda line: line.startswith("atomserve ")).split()[3]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, trust_env=False, timeout=15.0, **options)

    def signal(self, number: int) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    def wait(self, within: float = 15.0) -> int:
        code = self.process.wait(within)
        for reader in self._readers:
            reader.join(within)
        return code

    def stop(self) -> None:
        """End it by Ctrl-C, in order; by force if that does not help."""
        if self.process.poll() is None:
            self.signal(signal.SIGINT)
        try:
            self.wait(10)
        finally:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.wait()


@contextmanager
def running(
    folder: Path, *arguments: str, toml: str = "", prefix: Sequence[str] = ()
) -> Iterator[Live]:
    """Run a server in ``folder`` with the settings file ``toml``; it may not be ready yet.

    ``prefix`` is a command that runs it, such as ``unshare``.
    """
    (folder / "atomserve.toml").write_text(toml)
    server = Live(folder, arguments, prefix)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def live(folder: Path, *arguments: str, toml: str = "") -> Iterator[Live]:
    """Run a server in ``folder`` and enter when it is ready."""
    with running(folder, *arguments, toml=toml) as server:
        server.await_ready()
        yield server


def certificate(folder: Path) -> tuple[str, str]:
    """Write a certificate for 127.0.0.1 and its key, and return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    chain, private = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(pem))
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return str(chain), str(private)
