from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h2.config
import h2.events
import live
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from h2raw import Connection
from instances import Instance, answer, running, serving

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
PING = bytes.fromhex("000008060000000000") + b"whatever"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
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
    folder = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem")}


def curl(*arguments: str) -> str:
    return subprocess.check_output(["curl", "-sS", "-m", "10", *arguments], text=True)


class H2Client:
    """One HTTP/2 connection by prior knowledge."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=15)
        self.h2 = Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def ask(self, path: str) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        self.h2.send_headers(stream, fields, end_stream=True)
        self.flush()
        return stream

    def read_to_end(self) -> dict[int, str]:
        """Return the status of every stream that was answered in full."""
        statuses: dict[int, str] = {}
        answered = {}
        while data := self.sock.recv(65536):
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    statuses[event.stream_id] = dict(event.headers)[b":status"].decode()
                elif isinstance(event, h2.events.StreamEnded):
                    answered[event.stream_id] = statuses[event.stream_id]
            self.flush()
        self.sock.close()
        return answered


def stop(instance: Instance) -> float:
    """Send SIGTERM and return the seconds until the instance had ended, with exit code 0."""
    sent = instance.signal(signal.SIGTERM)
    assert instance.wait(15) == 0
    return time.monotonic() - sent


@pytest.mark.both_servers
def test_one_port_speaks_http_1_and_http_2() -> None:
    with serving() as instance:
        assert curl(f"{instance.url}/version") == "http 1.1"
        assert curl("--http2-prior-knowledge", f"{instance.url}/version") == "http 2"


@pytest.mark.both_servers
def test_tls_offers_both_by_alpn(certificate: dict[str, str]) -> None:
    with serving(certificate) as instance:
        assert instance.url.startswith("https://")
        trust = ("--cacert", certificate["certfile"])
        assert curl(*trust, "--http1.1", f"{instance.url}/version") == "https 1.1"
        assert curl(*trust, "--http2", f"{instance.url}/version") == "https 2"
        # What is not TLS at all leaves no error in the log.
        with instance.send("/version") as plain, contextlib.suppress(ConnectionError):
            assert b"HTTP" not in plain.recv(100)
        stop(instance)
    assert "SSL" not in instance.errors


def test_a_certificate_that_cannot_be_used_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("nonsense")
    with running({"certfile": str(path)}) as instance:
        assert instance.wait() == 2
    (failed,) = instance.all("Failed")
    assert failed["message"].startswith(f"certfile: cannot use {path}")
    assert not instance.all("Started")


def test_a_key_that_is_not_the_certificates_is_told_before_anything_starts(
    certificate: dict[str, str], tmp_path: Path
) -> None:
    _, key = live.certificate(tmp_path)
    for keyfile, why in ((key, "the key is not this certificate's"), ("absent", "No such file")):
        with running(certificate | {"keyfile": keyfile}) as instance:
            assert instance.wait() == 2
        (failed,) = instance.all("Failed")
        assert why in failed["message"]
        assert not instance.all("Started")


def test_the_server_does_not_name_itself_nor_write_to_the_log() -> None:
    with serving() as instance:
        assert "\nserver:" not in curl("-i", f"{instance.url}/version").lower()
        stop(instance)
    assert [line for line in instance.errors.splitlines() if "server.ended" not in line] == []


@pytest.mark.both_servers
def test_what_a_plugin_starts_inherits_neither_port_nor_channel() -> None:
    with serving() as instance:
        pid = instance.wait_for("Started")["pid"]
        inheritable = [
            fd
            for fd in os.listdir(f"/proc/{pid}/fd")
            if int(fd) > 2
            and not int(
                Path(f"/proc/{pid}/fdinfo/{fd}").read_text().partition("flags:\t")[2].split()[0], 8
            )
            & os.O_CLOEXEC
        ]
        assert inheritable == []


@pytest.mark.both_servers
def test_d01_every_http_1_request_in_flight_is_answered() -> None:
    with serving() as instance:
        connections = [instance.send("/sleep?s=1") for _ in range(50)]
        instance.await_in_flight(50)
        took = stop(instance)
        answers = [answer(connection) for connection in connections]
        for connection in connections:
            connection.close()
    assert [reply.startswith(b"HTTP/1.1 200") for reply in answers] == [True] * 50
    assert took < 2.0
    assert instance.events[-1]["aborted"] == 0


@pytest.mark.both_servers
def test_every_http_2_stream_in_flight_is_answered() -> None:
    with serving() as instance:
        clients = [H2Client(instance.address) for _ in range(5)]
        streams = [client.ask("/sleep?s=1") for client in clients for _ in range(20)]
        instance.await_in_flight(100)
        with ThreadPoolExecutor(5) as pool:  # who does not answer pings is waited for
            reading = [pool.submit(client.read_to_end) for client in clients]
            took = stop(instance)
            answers = [status for each in reading for status in each.result().values()]
    assert len(streams) == 100
    assert answers == ["200"] * 100
    assert took < 2.0


@pytest.mark.both_servers
def test_an_answer_that_is_read_late_is_whole_after_a_stop() -> None:
    size = 8_000_000
    with serving() as instance, instance.send(f"/big?n={size}") as connection:
        instance.await_in_flight(1)
        instance.signal(signal.SIGTERM)
        instance.wait_for("NotReady")
        _, _, body = answer(connection).partition(b"\r\n\r\n")
        assert len(body) == size
        assert instance.wait() == 0


@pytest.mark.parametrize("stuck", [{}, {"stuck_thread": True}, {"stuck_unload": True}])
def test_d04_a_request_that_does_not_end_is_answered_503_at_the_drain_timeout(
    stuck: dict[str, bool],
) -> None:
    settings = {"drain_timeout": 3.0, "unload_timeout": 0.5}
    with serving(settings, stuck) as instance, instance.send("/sleep?s=60") as connection:
        client = H2Client(instance.address)
        client.ask("/sleep?s=60")
        instance.await_in_flight(2)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(client.read_to_end)
            took = stop(instance)
            assert list(reading.result().values()) == ["503"]
        assert answer(connection).startswith(b"HTTP/1.1 503")
    assert 3.0 <= took <= 4.5
    assert instance.events[-1]["aborted"] == 2
    assert "requests=2" in instance.errors


def test_d06_not_ready_comes_first_and_connections_are_accepted_until_the_delay_ends() -> None:
    with serving({"drain_delay": 1.0}) as instance:
        sent = instance.signal(signal.SIGTERM)
        while instance.get("/readyz")[0] == 200:
            pass
        assert time.monotonic() - sent < 0.1
        accepted = refused = 0.0
        try:
            while instance.get("/version")[0] == 200:
                accepted = time.monotonic() - sent
        except OSError:
            refused = time.monotonic() - sent
        assert accepted > 0.9
        assert 0.9 < refused < 1.3
        assert instance.wait() == 0


@pytest.mark.both_servers
def test_connections_without_a_request_do_not_hold_up_the_end() -> None:
    with serving({"drain_timeout": 10.0}) as instance:
        silent = socket.create_connection(instance.address)
        half = socket.create_connection(instance.address)
        half.sendall(b"GET / HT")
        kept = instance.send("/version")
        assert b" 200 " in answer(kept)
        preface = H2Client(instance.address)
        assert preface.sock.recv(65536)
        took = stop(instance)
        for connection in (silent, half, kept, preface.sock):
            connection.close()
    assert took < 2.0


def read_until_closed(sock: socket.socket) -> float:
    """Return the seconds until the peer closed."""
    start = time.monotonic()
    with sock, contextlib.suppress(ConnectionError):
        while sock.recv(65536):
            pass
    return time.monotonic() - start


@pytest.mark.parametrize("sent", [b"", b"GET / HT", PREFACE, PREFACE + PING])
def test_a_connection_that_asks_nothing_is_closed_at_the_header_timeout(sent: bytes) -> None:
    with serving({"header_timeout": 0.5}) as instance:
        sock = socket.create_connection(instance.address, timeout=5)
        sock.sendall(sent)
        assert 0.4 < read_until_closed(sock) < 1.0


@pytest.mark.parametrize("http2", [False, True])
def test_a_connection_that_has_asked_is_kept_for_longer(http2: bool) -> None:
    with serving({"header_timeout": 0.2, "keep_alive": 1.0}) as instance:
        if http2:
            client = H2Client(instance.address)
            client.ask("/version")
            sock = client.sock
        else:
            sock = instance.send("/version")
            assert b" 200 " in answer(sock)
        assert 0.9 < read_until_closed(sock) < 1.5


def test_a_request_that_is_worked_on_is_not_cut_by_either() -> None:
    with serving({"header_timeout": 0.2, "keep_alive": 0.3}) as instance:
        with instance.send("/sleep?s=1") as connection:
            assert b" 200 " in answer(connection)
        assert curl("--http2-prior-knowledge", f"{instance.url}/sleep?s=1") == "slept"


def test_a_kept_connection_survives_1500_requests() -> None:
    with serving() as instance:
        client = H2Client(instance.address)
        asked = 0
        done = 0
        while done < 1500:
            for _ in range(50):
                client.ask("/version")
            asked += 50
            while done < asked:
                for event in client.h2.receive_data(client.sock.recv(65536)):
                    assert not isinstance(event, h2.events.ConnectionTerminated)
                    done += isinstance(event, h2.events.StreamEnded)
                client.flush()
        client.sock.close()
