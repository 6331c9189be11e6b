"""What deployments of linker_atom set is understood, and named where it decides."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atomserve.configuration.linker_environment import (
    HEALTH_PATH,
    Meta,
    overrides,
    read_meta,
    told_by_app,
)
from atomserve.configuration.load import Loaded, load_settings
from atomserve.errors import ConfigError
from atomserve.settings import Settings
from atomserve.testing import serve
from atomserve.wrapper import Wrapper

README = {
    "abilityCode": "OD_1",
    "abilityCodeInstance": "OD_1_x",
    "abilityDependAtomCodes": ["atom_1", "atom_2"],
    "atomCode": "atom_1",
    "atomProcessUrl": "/svc/v1/process",
    "k8sHealthcheckUrl": "/svc/v1/health/ping",
    "modelIds": "model_a,model_b",
    "servingHost": "172.16.36.3",
    "servingPort": "8080",
    "svcAddress": "http://svc.ns:8000",
    "somethingNew": {"a": [1]},
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(toml: str = "", *, flags: dict[str, Any] | None = None, **environ: str) -> Loaded:
    if toml:
        Path("atomserve.toml").write_text(toml, encoding="utf-8")
    return load_settings(config_file=None, environ=environ, flags=flags or {})


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def meta(**changes: Any) -> str:
    return json.dumps(README | changes)


@pytest.mark.parametrize(
    ("name", "written", "path", "value"),
    [
        ("ATOM_WORKERS", "3", "api_processes", 3),
        ("ATOM_PORT", "9001", "port", 9001),
        ("ATOM_API_PREFIX", "/svc", "prefix", "/svc"),
        ("ATOM_TITLE", "Cats", "title", "Cats"),
        ("ATOM_DESC", "Finds cats", "description", "Finds cats"),
        ("DOCS_SWITCH", "False", "docs", False),
        ("DOCS_SWITCH", "1", "docs", True),
        ("PROFILING", "true", "linker.profiling", True),
        ("PROFILING", "False", "linker.profiling", False),
    ],
)
def test_a_variable_of_linker_atom_sets_what_it_means(
    name: str, written: str, path: str, value: object
) -> None:
    loaded = load(**{name: written})
    found: Any = loaded.settings
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert loaded.origins[path] == f"environment {name}"


def test_linkers_variables_are_weaker_than_our_own_and_stronger_than_the_file() -> None:
    both = {"ATOM_PORT": "2", "ATOMSERVE_PORT": "3"}
    assert load("port = 1", ATOM_PORT="2").settings.port == 2
    assert load("port = 1", **both).settings.port == 3
    loaded = load("port = 1", flags={"port": "4"}, **both)
    assert (loaded.settings.port, loaded.origins["port"]) == (4, "--port")


def test_an_empty_variable_says_nothing() -> None:
    empty = ("ATOM_WORKERS", "ATOM_PORT", "ATOM_TITLE", "DOCS_SWITCH", "PROFILING", "META")
    assert load(**dict.fromkeys(empty, "")).settings == Settings()


def test_a_kubernetes_service_called_atom_sets_no_port() -> None:
    assert load(ATOM_PORT="tcp://10.0.0.1:80").settings.port == Settings().port


@pytest.mark.parametrize("name", ["DOCS_SWITCH", "PROFILING"])
def test_a_switch_that_is_neither_on_nor_off_is_refused(name: str) -> None:
    assert f"(environment {name}): expected true or false" in refusal(**{name: "maybe"})


def test_meta_decides_the_registration_and_is_named_key_by_key() -> None:
    loaded = load(META=meta())
    registration = loaded.settings.registration
    assert registration.registrar == "linker"
    assert registration.url == "http://172.16.36.3:8080"
    assert registration.advertise == "http://svc.ns:8000"
    assert registration.options == {
        "abilityCode": "OD_1",
        "abilityCodeInstance": "OD_1_x",
        "abilityDependAtomCodes": ["atom_1", "atom_2"],
        "atomCode": "atom_1",
        "requestUrl": "http://svc.ns:8000/svc/v1/process",
    }
    assert loaded.settings.linker.health_path == "/svc/v1/health/ping"
    origins = loaded.origins
    assert origins["registration.registrar"] == "environment META.servingHost"
    assert origins["registration.url"] == "environment META.servingHost, META.servingPort"
    assert "META.abilityCode," in origins["registration.options"]
    assert origins["linker.health_path"] == "environment META.k8sHealthcheckUrl"


def test_settings_of_our_own_are_stronger_than_meta_and_options_are_joined() -> None:
    loaded = load(
        '[registration]\nurl = "http://file"\n'
        '[registration.options]\npath = "here.json"\natomCode = "old"',
        META=meta(),
        ATOMSERVE_REGISTRATION__REGISTRAR="file",
    )
    registration = loaded.settings.registration
    assert (registration.registrar, registration.url) == ("file", "http://172.16.36.3:8080")
    assert registration.options["path"] == "here.json"
    assert registration.options["atomCode"] == "atom_1"


def test_nothing_registers_where_meta_names_no_host() -> None:
    loaded = load(META=meta(servingHost=""), HOST_NODE_NAME="node-7")
    assert loaded.settings.registration.registrar == ""
    assert loaded.settings.registration.url == "http://node-7:8080"
    assert loaded.origins["registration.url"] == "environment HOST_NODE_NAME, META.servingPort"
    own = load(META=meta(servingHost="")).settings.registration
    assert own.url == f"http://{socket.gethostname()}:8080"
    assert load(HOST_NODE_NAME="node-7").settings == Settings()


def test_meta_has_the_defaults_of_its_contract() -> None:
    assert read_meta("{}") == Meta()
    loaded = load(META='{"servingHost": "cp"}').settings
    assert loaded.registration.url == "http://cp:80"
    assert loaded.registration.options == {"requestUrl": "/atom/process"}
    assert loaded.linker.health_path == HEALTH_PATH
    assert load(META=meta(k8sHealthcheckUrl="")).settings.linker.health_path == ""


@pytest.mark.parametrize("port", [0, "0", 80, "65535"])
def test_a_port_may_be_a_number_or_text(port: object) -> None:
    assert read_meta(meta(servingPort=port)).servingPort == int(str(port))


def test_an_address_of_ipv6_is_bracketed() -> None:
    assert read_meta(meta(servingHost="fd00::1")).base_url("") == "http://[fd00::1]:8080"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("hunter2", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ('{"abilityCode": "hunter2"', "expected a JSON object"),
        ('{"abilityCode": 5}', "$.abilityCode"),
        ('{"servingPort": "http"}', "$.servingPort"),
        ('{"servingPort": 65536}', "$.servingPort"),
        ('{"abilityDependAtomCodes": "hunter2"}', "$.abilityDependAtomCodes"),
        ('{"servingHost": "http://hunter2:80/"}', "META.servingHost"),
        ('{"servingHost": "hunter2:80"}', "META.servingHost"),
        ('{"servingHost": "hunter2@cp"}', "META.servingHost"),
        ("\udcff", "not text"),
    ],
)
def test_a_malformed_meta_is_one_line_that_does_not_repeat_it(text: str, part: str) -> None:
    message = refusal(META=text)
    assert message.startswith("META")
    assert part in message
    assert "hunter2" not in message


def test_a_malformed_meta_ends_every_start_with_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "atomserve", "run", "--plugins", "echo"]
    environ = os.environ | {"META": "{", "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and "META" in done.stderr


def test_what_a_hosted_file_sets_gives_way_to_what_the_operator_said() -> None:
    operators = load('prefix = "/own"\n[registration.options]\natomCode = "own"').settings
    told = told_by_app(operators, {"META": meta(), "ATOM_API_PREFIX": "/theirs"})
    assert told.prefix == "/own"
    assert told.registration.registrar == "linker"
    assert told.registration.options["atomCode"] == "own"
    assert told.registration.options["abilityCode"] == "OD_1"
    assert told_by_app(Settings(), {"ATOM_API_PREFIX": "/theirs"}).prefix == "/theirs"
    assert told_by_app(operators, {}) == operators


def test_every_override_names_a_setting_and_a_variable() -> None:
    names = {override.path for override in overrides({"META": meta(), "ATOM_PORT": "1"})}
    assert names <= set(load().origins)


class Echo(Wrapper):
    def predict(self, text: str) -> str:
        return text


def test_title_and_description_are_those_of_the_api() -> None:
    with serve(Echo, title="Cats", description="Finds *cats*.") as client:
        info = client.get("/openapi.json").json()["info"]
        assert info["title"] == "Cats"
        assert info["description"].startswith("Finds *cats*.\n\nEvery failure is ")
        assert "<title>Cats</title>" in client.get("/docs").text
