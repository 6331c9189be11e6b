"""SkyWalking's agent is started where it is wanted, and nothing that is wrong with it stops us."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from live import ROOT, live

from atomserve.configuration.load import Loaded, load_settings
from atomserve.settings import Settings, SkyWalkingSettings
from atomserve.telemetry.skywalking import QUIET, _Brief

VARIABLES = {
    "SW_SWITCH": "True",
    "SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9",
    "SW_AGENT_NAME": "cats",
    "SW_AGENT_INSTANCE_NAME": "cats-1",
    "SW_AGENT_LOG_REPORTER_ACTIVE": "False",
    "SW_AGENT_LOG_REPORTER_LEVEL": "WARN",
}

DOUBLE = {
    "__init__.py": "",
    "config.py": (
        "import json, os\n"
        "def init(**told):\n"
        "    with open(f'told-{os.getpid()}', 'w') as file: json.dump(told, file)\n"
    ),
    "agent.py": (
        "import logging, os\n"
        "def start():\n"
        "    if os.path.exists('broken'): raise ValueError('SW_AGENT_QUEUE_TIMEOUT is no number')\n"
        "    logging.getLogger('skywalking').error('Exception in heartbeat, retry in 60 seconds')\n"
    ),
}

PLUGIN = """
import logging
from atomserve import Wrapper

class Say(Wrapper):
    def predict(self, text: str) -> str:
        logging.getLogger("cats").error("said %s", text)
        return text
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "say.py").write_text(PLUGIN)
    return tmp_path


def load(**environ: str) -> Loaded:
    return load_settings(config_file=None, environ=environ, flags={})


def test_its_variables_are_settings(folder: Path) -> None:
    loaded = load(**VARIABLES)
    assert loaded.settings.skywalking == SkyWalkingSettings(
        enabled=True,
        collector="127.0.0.1:9",
        service="cats",
        instance="cats-1",
        report_logs=False,
        log_level="warning",
    )
    assert loaded.origins["skywalking.enabled"] == "environment SW_SWITCH"


def test_a_switch_that_says_false_is_off(folder: Path) -> None:
    assert load(SW_SWITCH="False").settings == Settings()


def test_wrong_values_are_passed_over_with_a_warning(folder: Path) -> None:
    loaded = load(SW_SWITCH="maybe", SW_AGENT_LOG_REPORTER_LEVEL="LOUD", SW_AGENT_NAME="cats")
    assert loaded.settings.skywalking == SkyWalkingSettings(service="cats")
    first, second = loaded.warnings
    assert first == (
        "skywalking.enabled = 'maybe' (environment SW_SWITCH): expected true or false; "
        "it is passed over"
    )
    assert "SW_AGENT_LOG_REPORTER_LEVEL" in second


@pytest.fixture
def wanted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return folder


def served(folder: Path) -> list[dict[str, Any]]:
    """Serve one request; return the warnings about SkyWalking."""
    with live(folder, "--plugins", "./say.py") as server, server.client() as client:
        answer = client.post("/v1/models/say/predict", json={"text": "hello"})
        assert answer.json() == "hello"
    return [record for line in server.logged if (record := about_skywalking(line))]


def about_skywalking(line: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line) if "skywalking" in line else {}
    return record if record.get("level") in ("warning", "error") else {}


def test_what_is_wrong_is_a_warning_each_and_requests_are_served(
    wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SW_AGENT_LOG_REPORTER_ACTIVE", "maybe")
    monkeypatch.delenv("SW_AGENT_COLLECTOR_BACKEND_SERVICES")
    first, second = served(wanted)
    assert "(environment SW_AGENT_LOG_REPORTER_ACTIVE): expected true" in first["reason"]
    assert "no collector" in second["reason"]


def test_without_its_extra_it_says_once_what_to_install() -> None:
    code = (
        "import sys; sys.modules['skywalking'] = None\n"
        "from atomserve.settings import SkyWalkingSettings\n"
        "from atomserve.telemetry.logs import configure_logging\n"
        "from atomserve.telemetry.skywalking import start_agent, warn_if_unusable\n"
        "configure_logging()\n"
        "wanted = SkyWalkingSettings(enabled=True, collector='127.0.0.1:9')\n"
        "warn_if_unusable(wanted); start_agent(wanted, meters=True)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (line,) = done.stderr.splitlines()
    assert "pip install 'atomserve[skywalking]'" in json.loads(line)["reason"]


def put_double(folder: Path) -> None:
    (folder / "skywalking").mkdir()
    for name, text in DOUBLE.items():
        (folder / "skywalking" / name).write_text(text)


def test_each_process_starts_it_and_only_one_kind_reports_meters(wanted: Path) -> None:
    put_double(wanted)
    warnings = served(wanted)
    told = [json.loads(path.read_text()) for path in wanted.glob("told-*")]
    assert sorted(one["agent_meter_reporter_active"] for one in told) == [False, True]
    for one in told:
        assert one["agent_name"] == "cats"
        assert one["agent_instance_name"] == "cats-1"
        assert one["agent_collector_backend_services"] == "127.0.0.1:9"
        assert one["agent_log_reporter_active"] is False
        assert one["agent_log_reporter_level"] == "WARNING"
    assert [warning["logger"] for warning in warnings] == ["skywalking"] * 2


def test_an_agent_that_cannot_start_is_a_warning_and_requests_are_served(wanted: Path) -> None:
    put_double(wanted)
    (wanted / "broken").touch()
    warnings = served(wanted)
    assert {warning["event"] for warning in warnings} == {"skywalking.off"}
    assert all("SW_AGENT_QUEUE_TIMEOUT" in warning["reason"] for warning in warnings)


def test_the_agents_complaints_are_told_once_in_a_while_without_a_traceback() -> None:
    now = [0.0]
    brief = _Brief(lambda: now[0])

    def record(seconds: int) -> logging.LogRecord:
        message = f"Exception in heartbeat service, retry in {seconds} seconds"
        cause = ValueError("no collector")
        return logging.LogRecord(
            "skywalking", logging.ERROR, "", 0, message, (), (ValueError, cause, None)
        )

    first = record(2)
    assert brief.filter(first)
    assert first.getMessage() == "Exception in heartbeat service: ValueError: no collector"
    assert first.exc_info is None
    assert not brief.filter(record(4))
    now[0] = QUIET
    assert brief.filter(record(60))


class Collector:
    """SkyWalking's collector as far as an agent knows it; ``heard`` tells of the plugin's line."""

    def __init__(self) -> None:
        import grpc

        self.heard = threading.Event()
        self.properties: list[Any] = []
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers([self._handler()])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def _handler(self) -> Any:
        import grpc
        from skywalking.protocol.common.Command_pb2 import Commands
        from skywalking.protocol.logging.Logging_pb2 import LogData
        from skywalking.protocol.management.Management_pb2 import InstanceProperties

        def logs(requests: Any, _: Any) -> Any:
            for request in requests:
                if "said x" in LogData.FromString(request).body.text.text:
                    self.heard.set()
            return Commands().SerializeToString()

        def properties(request: Any, _: Any) -> Any:
            self.properties.append(InstanceProperties.FromString(request))
            return Commands().SerializeToString()

        methods = {
            "/skywalking.v3.LogReportService/collect": grpc.stream_unary_rpc_method_handler(logs),
            "/skywalking.v3.ManagementService/reportInstanceProperties": (
                grpc.unary_unary_rpc_method_handler(properties)
            ),
        }

        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc] # it has no types
            def service(self, details: Any) -> Any:
                return methods.get(details.method)

        return Handler()


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("skywalking.agent", reason="needs apache-skywalking (and psutil 5.9.5)")
    collector = Collector()
    yield collector
    collector.server.stop(None).wait()


@pytest.mark.timeout(60)
def test_the_real_agent_reports_instance_and_logs(
    wanted: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    monkeypatch.setenv("SW_AGENT_COLLECTOR_BACKEND_SERVICES", f"127.0.0.1:{collector.port}")
    monkeypatch.setenv("SW_AGENT_LOG_REPORTER_ACTIVE", "true")
    with live(wanted, "--plugins", "./say.py") as server:
        with server.client() as client:
            client.post("/v1/models/say/predict", json={"text": "x"}).raise_for_status()
        assert collector.heard.wait(30)
    assert {found.service for found in collector.properties} == {"cats"}
    assert {found.serviceInstance for found in collector.properties} == {"cats-1"}
