"""A registration's calls over real connections: bounded, contained, authorized, single."""

from __future__ import annotations

import datetime
import ipaddress
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import live
import pytest
import structlog
from control_plane import (
    GARBAGE,
    ControlPlane,
    control_plane,
    drip,
    hang,
    says,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atomserve.errors import ConfigError
from atomserve.registration import registrars
from atomserve.registration.aside import MOST, aside
from atomserve.registration.client import LARGEST
from atomserve.registration.registrar import Announced, CallFailed, Forgotten, Load, Registrar
from atomserve.registration.registrars import registrar_for
from atomserve.registration.registration import Registration
from atomserve.settings import RegistrationSettings
from atomserve.telemetry.logs import configure_logging

OPTIONS = {
    "abilityCode": "ability",
    "abilityCodeInstance": "ability-1",
    "abilityDependAtomCodes": ["a", "b"],
    "atomCode": "atom",
    "requestUrl": "http://atom.test:8000/atom/process",
}
FACTS = {"instance": "pod-1", "url": "http://10.1.2.3:8000", "boot": "b1"}
PATIENCE = 15.0


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        yield plane


def linker(url: str, **settings: Any) -> RegistrationSettings:
    quick = {"start_jitter": 0.0, "heartbeat": 0.03, "backoff_min": 0.02, "backoff_max": 0.05}
    given = {"registrar": "linker", "url": url, "options": OPTIONS, **quick, **settings}
    return RegistrationSettings(**given)


def announced(**facts: Any) -> Announced:
    return Announced(**{**FACTS, "epoch": 1000, **facts})


async def no_load() -> Load:
    return Load(in_flight=3, waiting=1, running=2, places=64)


class Told:
    """The changes that a registration tells of."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self._news = anyio.Event()

    def __call__(self, state: str, detail: str) -> None:
        self.states.append((state, detail))
        self._news.set()

    async def wait_for(self, state: str, count: int = 1) -> str:
        with anyio.fail_after(PATIENCE):
            while True:
                found = [detail for name, detail in self.states if name == state]
                if len(found) >= count:
                    return found[count - 1]
                self._news = anyio.Event()
                await self._news.wait()


@asynccontextmanager
async def running(
    settings: RegistrationSettings, registrar: Registrar | None = None, *, ready: bool = True
) -> Any:
    told = Told()
    registration = Registration(
        settings, registrar or registrar_for(settings), announced(), ask=no_load, tell=told
    )
    if ready:
        registration.become_ready(True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(registration.run)
        yield registration, told
        tasks.cancel_scope.cancel()


async def heard(plane: ControlPlane, name: str, count: int = 1) -> Any:
    """Wait for a call in a thread, so that the loop goes on."""
    return await anyio.to_thread.run_sync(lambda: plane.wait_for(name, count=count))


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(18):
            await main()

    anyio.run(bounded)


# The protocol of linker_atom.


def test_serving_hears_of_the_instance_as_its_contract_says(plane: ControlPlane) -> None:
    async def main() -> None:
        async with running(linker(plane.url)) as (registration, told):
            await heard(plane, "health", 3)
            await registration.withdraw()
            assert told.states == [("registered", ""), ("withdrawn", "")]

    run(main)
    (registered,) = plane.calls("register")
    assert registered.body == {**OPTIONS, "atomInstanceName": "pod-1"}
    assert {json.dumps(call.body) for call in plane.calls("health")} == {
        '{"atomInstanceName": "pod-1"}'
    }
    assert [call.body for call in plane.calls("unRegister")] == [{"atomInstanceName": "pod-1"}]
    assert plane.heard[-1].name == "unRegister"
    assert registered.headers["host"] == f"127.0.0.1:{plane.port}"


def test_requests_go_to_what_is_advertised_unless_the_options_say_where(
    plane: ControlPlane,
) -> None:
    async def main() -> None:
        registrar = registrar_for(linker(f"{plane.url}/", options={"atomCode": "a"}))
        await registrar.register(announced())

    run(main)
    assert plane.heard[0].body["requestUrl"] == "http://10.1.2.3:8000"
    assert plane.heard[0].body["abilityDependAtomCodes"] == []


def test_r05_one_registration_answers_a_heartbeat_that_asks_for_it(plane: ControlPlane) -> None:
    async def main() -> None:
        async with running(linker(plane.url)) as (registration, told):
            await heard(plane, "health", 2)
            plane.instances.clear()
            await told.wait_for("registered", 2)
            await heard(plane, "health", 8)
            assert registration.report().epoch == 1002

    run(main)
    assert len(plane.calls("register")) == 2


# Faults of the control plane.


@pytest.mark.parametrize("name", GARBAGE)
def test_r04_an_answer_that_is_none_is_a_failure_that_ends_nothing(
    plane: ControlPlane, name: str
) -> None:
    async def main() -> None:
        plane.faults["register"] = GARBAGE[name]
        async with running(linker(plane.url)) as (_, told):
            assert await told.wait_for("waiting")
            plane.faults.clear()
            assert await told.wait_for("registered") == ""
            plane.faults["health"] = GARBAGE[name]
            assert await told.wait_for("lost")
            plane.faults.clear()
            await told.wait_for("registered", 2)

    run(main)
    assert not plane.calls("elsewhere"), "a redirect was followed"
    assert plane.sent < 32 * LARGEST, "an answer was read to its end"


@pytest.mark.parametrize("fault", [hang, drip])
def test_r03_a_call_that_is_not_answered_ends_in_its_time(plane: ControlPlane, fault: Any) -> None:
    async def main() -> None:
        plane.faults["register"] = plane.faults["health"] = fault
        settings = linker(plane.url, timeout=0.3, register_timeout=0.6)
        async with running(settings) as (_, told):
            assert await told.wait_for("waiting") == "no answer within 0.6 s"
            del plane.faults["register"]
            assert await told.wait_for("lost") == "no answer within 0.3 s"
        assert "aside" not in {thread.name for thread in threading.enumerate()}

    run(main)


def test_r03_a_call_that_hangs_does_not_keep_a_stop(plane: ControlPlane) -> None:
    async def main() -> None:
        plane.faults = dict.fromkeys(("register", "unRegister"), hang)
        settings = linker(plane.url, withdraw_timeout=0.5)
        async with running(settings) as (registration, told):
            await heard(plane, "register")
            with anyio.fail_after(5):  # far less than a registration may take
                await registration.withdraw()
            # It tried, since the registration may have been heard.
            assert await told.wait_for("withdrawn") == "no answer within 0.5 s"

    with structlog.testing.capture_logs() as records:
        run(main)
    assert len(plane.calls("unRegister")) == 1
    warned = [record["state"] for record in records if record["log_level"] == "warning"]
    assert warned == ["withdrawn"]


def test_r01_a_control_plane_that_is_down_is_one_warning_however_often_it_is_tried(
    plane: ControlPlane,
) -> None:
    async def main() -> None:
        async with running(linker(plane.url, backoff_max=0.03)) as (registration, told):
            with anyio.fail_after(PATIENCE):
                while registration.report().calls.get("register", {}).get("failed", 0) < 6:
                    await anyio.sleep(0.01)
            plane.up()
            await told.wait_for("registered")

    plane.down()
    with structlog.testing.capture_logs() as records:
        run(main)
    told = [(record["log_level"], record["state"]) for record in records if "state" in record]
    assert told == [("warning", "waiting"), ("info", "registered")]
    warning = next(record for record in records if record["log_level"] == "warning")
    assert warning["error"] == "nothing listens there"


def test_each_change_is_one_warning(plane: ControlPlane) -> None:
    async def main() -> None:
        async with running(linker(plane.url)) as (_, told):
            await told.wait_for("registered")
            for lost in (1, 2):
                plane.faults["health"] = plane.faults["register"] = says(b"{}", 500)
                await told.wait_for("lost", lost)
                await heard(plane, "register", len(plane.calls("register")) + 3)
                plane.faults.clear()
                await told.wait_for("registered", lost + 1)

    with structlog.testing.capture_logs() as records:
        run(main)
    told = [(record["log_level"], record["state"]) for record in records if "state" in record]
    assert told == [("info", "registered"), *[("warning", "lost"), ("info", "registered")] * 2]


# A stranger's registrar.


class Strange:
    """A registrar that does what it is told, which is nothing good."""

    carries_load = False

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        self.act = act
        self.calls = 0
        self.closed = False

    async def register(self, announced: Announced) -> None:
        self.calls += 1
        await self.act()

    async def heartbeat(self, announced: Announced, load: Load) -> None:
        await self.register(announced)

    async def withdraw(self, announced: Announced) -> None:
        await self.register(announced)

    async def aclose(self) -> None:
        self.closed = True
        await self.act()


async def breaks() -> None:
    raise ZeroDivisionError("a secret")


async def exits() -> None:
    raise SystemExit(1)


async def gives_up() -> None:
    raise anyio.get_cancelled_exc_class()


async def fails_in_a_group() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(breaks)


async def times_out() -> None:
    with anyio.fail_after(0.01):
        await anyio.sleep_forever()


async def has_forgotten() -> None:
    raise Forgotten("who?\nwhat?")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (breaks, "ZeroDivisionError"),
        (exits, "SystemExit"),
        (gives_up, "cut off"),
        (fails_in_a_group, "ExceptionGroup"),
        (times_out, "TimeoutError"),
        (has_forgotten, "who? what?"),
    ],
)
def test_what_a_strangers_registrar_raises_is_a_failed_call(act: Any, words: str) -> None:
    strange = Strange(act)

    async def main() -> None:
        async with running(linker("http://127.0.0.1:1"), strange) as (registration, told):
            assert await told.wait_for("waiting") == words
            with anyio.fail_after(PATIENCE):
                while strange.calls < 2:
                    await anyio.sleep(0.01)
            await registration.withdraw()

    run(main)
    assert strange.closed


def test_a_registrar_that_cannot_be_found_or_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**settings: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            registrar_for(RegistrationSettings(**settings))
        return str(caught.value)

    assert refused(registrar="zookeeper") == (
        'registration.registrar: no registrar "zookeeper" is installed '
        "(installed: consul, file, linker)"
    )
    assert "set url too" in refused(registrar="linker")
    assert "options.path" in refused(registrar="file")
    assert "unknown field `x`" in refused(registrar="consul", options={"x": 1})
    assert "no folder" in refused(registrar="file", options={"path": str(tmp_path / "a" / "b")})
    url = "https://127.0.0.1:1"
    nowhere = str(tmp_path / "none.pem")
    assert "ca_file: cannot use" in refused(registrar="linker", url=url, ca_file=nowhere)
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    assert "not valid PEM" in refused(registrar="linker", url=url, ca_file=str(broken))
    for module in ("x.y:Z", "json:loads", "json:nothing"):
        monkeypatch.setitem(registrars.OWN, "strange", module)
        assert '"strange" cannot be used' in refused(registrar="strange")


def test_pyproject_lists_the_registrars_of_our_own() -> None:
    import tomllib

    page = Path(__file__).parent.parent / "pyproject.toml"
    points = tomllib.loads(page.read_text())["project"]["entry-points"]
    assert points[registrars.REGISTRARS] == registrars.OWN


# Consul.


def consul(url: str, **settings: Any) -> RegistrationSettings:
    options = {"service": "ocr", "tags": ["gpu"], **settings.pop("options", {})}
    return linker(url, **{"registrar": "consul", "options": options, **settings})


def test_a_consul_agent_gets_a_service_whose_check_passes_with_the_load(
    plane: ControlPlane,
) -> None:
    async def main() -> None:
        async with running(consul(plane.url)) as (registration, _):
            await heard(plane, "pass", 2)
            assert set(plane.services) == {"pod-1-b1"}
            await registration.withdraw()

    run(main)
    (registered,) = plane.calls("register")
    assert registered.body == {
        "ID": "pod-1-b1",
        "Name": "ocr",
        "Tags": ["gpu"],
        "Address": "10.1.2.3",
        "Port": 8000,
        "Meta": {
            "instance": "pod-1",
            "boot": "b1",
            "epoch": "1001",
            "url": "http://10.1.2.3:8000",
        },
        "Check": {
            "CheckID": "service:pod-1-b1",
            "TTL": "10000ms",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "1m",
        },
    }
    assert plane.calls("pass")[0].query["note"] == ["3 in flight, 2 running, 1 of 64 waiting"]
    assert plane.services == {}


@pytest.mark.parametrize(
    "answer",
    [(b'Unknown check ID "service:x"', 404), (b'CheckID "x" does not have associated TTL', 500)],
)
def test_a_consul_agent_that_has_lost_its_memory_is_told_again(
    plane: ControlPlane, answer: tuple[bytes, int]
) -> None:
    async def main() -> None:
        async with running(consul(plane.url)) as (_, told):
            await heard(plane, "pass")
            plane.faults["pass"] = says(*answer)
            assert await told.wait_for("lost") == "it does not know this instance"
            plane.faults.clear()
            await told.wait_for("registered", 2)

    run(main)


def test_r08_the_late_withdrawal_of_one_boot_does_not_meet_the_next_at_consul(
    plane: ControlPlane,
) -> None:
    async def main() -> None:
        registrar = registrar_for(consul(plane.url))
        await registrar.register(announced())
        await registrar.register(announced(boot="b2", epoch=2000))
        await registrar.withdraw(announced())
        await registrar.withdraw(announced())

    run(main)
    assert set(plane.services) == {"pod-1-b2"}


# Files.


def file(path: Path, **settings: Any) -> RegistrationSettings:
    return linker("", **{"registrar": "file", "options": {"path": str(path)}, **settings})


def test_a_file_tells_of_the_instance_as_long_as_it_is_there(tmp_path: Path) -> None:
    place = tmp_path / "atom.json"

    async def main() -> None:
        async with running(file(place)) as (registration, told):
            await told.wait_for("registered")
            with anyio.fail_after(PATIENCE):
                while (found := json.loads(place.read_text()))["load"]["in_flight"] != 3:
                    await anyio.sleep(0.01)
            assert found["instance"] == "pod-1"
            assert found["epoch"] == 1001
            assert found["pid"] == os.getpid()
            assert abs(found["seen"] - time.time()) < PATIENCE
            place.unlink()
            assert "gone" in await told.wait_for("lost")
            await told.wait_for("registered", 2)
            assert json.loads(place.read_text())["epoch"] == 1002
            await registration.withdraw()

    run(main)
    assert list(tmp_path.iterdir()) == []


def test_r08_the_file_is_the_youngest_instances_as_long_as_that_lives(tmp_path: Path) -> None:
    async def main() -> None:
        old, young = announced(), announced(boot="b2", epoch=2000)
        settings = file(tmp_path, heartbeat=1000.0)
        registrar = registrar_for(settings)
        await registrar.register(old)
        await registrar.register(young)
        with pytest.raises(Forgotten):
            await registrar.heartbeat(old, Load())
        with pytest.raises(CallFailed, match="younger"):
            await registrar.register(old)
        await registrar.withdraw(old)
        place = tmp_path / "pod-1.json"
        assert json.loads(place.read_text())["boot"] == "b2"
        long_dead = json.loads(place.read_text()) | {"expires": 1.0}
        place.write_text(json.dumps(long_dead))
        await registrar.register(old)
        assert json.loads(place.read_text())["boot"] == "b1"
        place.write_text("nonsense")
        await registrar.register(young)

    run(main)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    place = tmp_path / "atom.json"

    async def main() -> None:
        registrar = registrar_for(file(place))
        await registrar.register(announced())
        done = threading.Event()

        def read() -> int:
            count = 0
            while not done.is_set() or not count:
                json.loads(place.read_text())
                count += 1
            return count

        async with anyio.create_task_group() as tasks:

            async def reading() -> None:
                assert await anyio.to_thread.run_sync(read)

            tasks.start_soon(reading)
            for number in range(50):
                await registrar.heartbeat(announced(), Load(in_flight=number))
            done.set()

    run(main)


# TLS and tokens.


def authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    usual = x509.BasicConstraints(ca=True, path_length=None)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = _certificate(name, name, key).add_extension(usual, critical=True)
    made = made.add_extension(usage, critical=True)
    return made.sign(key, hashes.SHA256()), key


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any, days: int = 1) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=3))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


PLAIN = serialization.NoEncryption()
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


def issued(folder: Path, ca: Any, name: str, *names: x509.GeneralName, days: int = 1) -> list[str]:
    """Write a certificate that ``ca`` has signed, and its key; return their paths."""
    certificate, authoritys_key = ca
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        _certificate(subject, certificate.subject, key, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authoritys_key, hashes.SHA256())
    )
    chain, private = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(made.public_bytes(PEM))
    private.write_bytes(key.private_bytes(PEM, PKCS8, PLAIN))
    return [str(chain), str(private)]


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@pytest.fixture
def ca(tmp_path: Path) -> Any:
    found = authority()
    (tmp_path / "ca.pem").write_bytes(found[0].public_bytes(PEM))
    return found


def secured(chain: list[str], client_ca: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*chain)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def registered_once(settings: RegistrationSettings) -> str:
    """Return the trouble of the first call; nothing if it went well."""
    words: list[str] = []

    async def main() -> None:
        try:
            await registrar_for(settings).register(announced())
        except CallFailed as exc:
            words.append(str(exc))

    run(main)
    return "".join(words)


def test_r15_a_certificate_is_trusted_by_the_authority_that_the_settings_name(
    tmp_path: Path, ca: Any
) -> None:
    names = [LOOPBACK, x509.DNSName("localhost")]
    with control_plane(secured(issued(tmp_path, ca, "good", *names))) as plane:
        trusted = str(tmp_path / "ca.pem")
        assert registered_once(linker(plane.url, ca_file=trusted)) == ""
        by_name = plane.url.replace("127.0.0.1", "localhost")
        assert registered_once(linker(by_name, ca_file=trusted)) == ""
        assert "not trusted" in registered_once(linker(plane.url))
    with control_plane(secured(list(live.certificate(tmp_path)))) as other:
        assert "self-signed" in registered_once(linker(other.url))
        assert "not trusted" in registered_once(linker(other.url, ca_file=trusted))
    assert other.heard == []
    assert len(plane.calls("register")) == 2


@pytest.mark.parametrize(
    ("days", "name", "words"), [(-1, LOOPBACK, "expired"), (1, x509.DNSName("other"), "mismatch")]
)
def test_r15_a_certificate_that_is_old_or_anothers_is_refused(
    tmp_path: Path, ca: Any, days: int, name: Any, words: str
) -> None:
    with control_plane(secured(issued(tmp_path, ca, "bad", name, days=days))) as plane:
        settings = linker(plane.url, ca_file=str(tmp_path / "ca.pem"))
        assert words in registered_once(settings)
    assert plane.heard == []


def test_r15_an_instance_shows_its_own_certificate(tmp_path: Path, ca: Any) -> None:
    trusted = str(tmp_path / "ca.pem")
    chain, key = issued(tmp_path, ca, "client", x509.DNSName("client"))
    with control_plane(secured(issued(tmp_path, ca, "good", LOOPBACK), trusted)) as plane:
        assert registered_once(linker(plane.url, ca_file=trusted))
        shown = linker(plane.url, ca_file=trusted, certfile=chain, keyfile=key)
        assert registered_once(shown) == ""


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Log everything as a server does, and return what returns it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging("json", "debug")
    yield lambda: "".join(capfd.readouterr())
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_r15_a_token_is_read_anew_and_never_logged(
    plane: ControlPlane, tmp_path: Path, logged: Callable[[], str]
) -> None:
    token = tmp_path / "token"
    token.write_text("first-secret\n")

    async def main() -> None:
        async with running(linker(plane.url, token_file=str(token))) as (_, told):
            await heard(plane, "health")
            token.write_text("Basic c2Vjb25kLXNlY3JldA==")
            await heard(plane, "health", len(plane.calls("health")) + 2)
            token.write_text("first-secret\nof two lines")
            assert await told.wait_for("lost") == "the token file holds no token"
            token.unlink()
            assert await told.wait_for("lost", 2) == "the token file cannot be read"
            token.write_text("third-secret")
            await told.wait_for("registered", 2)
            token.unlink()
            os.mkfifo(token)  # which nobody writes to
            assert await told.wait_for("lost", 3) == "the token file cannot be read"

    run(main)
    shown = [call.headers.get("authorization") for call in plane.heard]
    assert shown[0] == "Bearer first-secret"
    assert "Basic c2Vjb25kLXNlY3JldA==" in shown
    assert shown[-1] == "Bearer third-secret"
    written = logged()
    assert "registration.changed" in written
    assert "secret" not in written
    assert "c2Vjb25k" not in written


# What may block.


def test_no_proxy_of_the_environment_is_used(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert registered_once(linker(plane.url)) == ""


def test_work_that_never_ends_is_left_behind_and_bounded() -> None:
    released = threading.Event()

    async def main() -> None:
        for _ in range(MOST):
            with anyio.move_on_after(0.01) as scope:
                await aside(released.wait)
            assert scope.cancelled_caught
        with pytest.raises(OSError, match="does not answer"):
            await aside(released.wait)
        released.set()
        with anyio.fail_after(PATIENCE):
            while any(thread.name == "aside" for thread in threading.enumerate()):
                await anyio.sleep(0.01)
        assert await aside(sum, [1, 2]) == 3

    run(main)


def test_r11_nothing_but_what_is_shown_or_outlives_a_process_reads_the_wall_clock() -> None:
    package = Path(__file__).parent.parent / "atomserve"
    found = {
        path.name: path.read_text().count("time.time(")
        for path in [*(package / "registration").glob("*.py"), package / "supervisor/announcer.py"]
        if "time.time(" in path.read_text() or "datetime" in path.read_text()
    }
    assert found == {"file.py": 2, "announcer.py": 1}
