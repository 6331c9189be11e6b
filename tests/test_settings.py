"""Settings: what is read from where, which place wins, and what a mistake says."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve.configuration.catalogue import catalogue
from atomserve.configuration.load import Loaded, explain, load_settings
from atomserve.configuration.settings_page import settings_table
from atomserve.errors import ConfigError
from atomserve.settings import Settings
from atomserve.units import DURATION, RATE, SIZE


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(toml: str = "", *, flags: dict[str, Any] | None = None, **environ: str) -> Loaded:
    if toml:
        Path("atomserve.toml").write_text(toml, encoding="utf-8")
    return load_settings(config_file=None, environ=environ, flags=flags or {})


def refusal(toml: str = "", *, flags: dict[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(toml, flags=flags, **environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_gives_the_defaults() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_the_stronger_place_wins_and_is_named() -> None:
    toml = 'port = 1\nhost = "file"\nslots = 2\ndrain_delay = "1m"'
    environ = {"ATOMSERVE_PORT": "2", "ATOMSERVE_HOST": "env", "ATOMSERVE_SLOTS": "3"}
    loaded = load(toml, flags={"port": 3, "host": "flag", "slots": None}, **environ)
    origin = f"atomserve.toml:{Path('atomserve.toml').absolute()}"
    settings = loaded.settings
    assert (settings.port, loaded.origins["port"]) == (3, "--port")
    assert (settings.host, loaded.origins["host"]) == ("flag", "--host")
    assert (settings.slots, loaded.origins["slots"]) == (3, "environment ATOMSERVE_SLOTS")
    assert (settings.drain_delay, loaded.origins["drain_delay"]) == (60.0, origin)
    assert (settings.keep_alive, loaded.origins["keep_alive"]) == (75.0, "default")


def test_a_named_file_is_read_instead_of_the_folders_own(tmp_path: Path) -> None:
    Path("atomserve.toml").write_text("port = 1")
    named = tmp_path / "other.toml"
    named.write_text("port = 2")
    assert load_settings(config_file=named, environ={}, flags={}).settings.port == 2
    by_variable = {"ATOMSERVE_CONFIG": str(named)}
    assert load_settings(config_file=None, environ=by_variable, flags={}).settings.port == 2


def test_a_named_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read .*--config"):
        load_settings(config_file=Path("absent.toml"), environ={}, flags={})


def test_a_file_that_is_not_toml_is_an_error_with_its_line() -> None:
    assert "not TOML" in refusal("port = 1\nhost = \n")
    assert "line 2" in refusal("port = 1\nhost = \n")
    Path("atomserve.toml").write_bytes(b"host = '\xff'")
    assert "not TOML" in refusal()


def test_quantities_are_read_with_their_units_from_everywhere() -> None:
    loaded = load(
        'drain_delay = "250ms"\n[limits]\nbody = "1GB"\nmin_rate = "2KiB/s"\nheader_bytes = 4096',
        flags={"drain_timeout": "2m"},
        ATOMSERVE_LIMITS__BODIES_IN_FLIGHT="512KiB",
        ATOMSERVE_KEEP_ALIVE="1.5",
    ).settings
    assert (loaded.drain_delay, loaded.drain_timeout, loaded.keep_alive) == (0.25, 120.0, 1.5)
    limits = loaded.limits
    assert (limits.body, limits.bodies_in_flight) == (1_000_000_000, 512 * 1024)
    assert (limits.min_rate, limits.header_bytes) == (2048, 4096)


@pytest.mark.parametrize("word", ["false", "False", "0", "no", "OFF"])
def test_words_for_no_are_no(word: str) -> None:
    assert load(ATOMSERVE_ACCESS_LOG=word).settings.access_log is False


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "yes", "on"])
def test_words_for_yes_are_yes(word: str) -> None:
    assert load("docs = false", ATOMSERVE_DOCS=word).settings.docs is True


def test_a_word_that_is_neither_is_refused() -> None:
    assert "expected true or false" in refusal(ATOMSERVE_DOCS="maybe")
    assert "expected true or false" in refusal(ATOMSERVE_DOCS="")


def test_the_flag_that_turns_something_off_is_the_origin() -> None:
    assert load(flags={"access_log": False}).origins["access_log"] == "--no-access-log"


def test_lists_in_the_environment_are_comma_separated() -> None:
    loaded = load(ATOMSERVE_PLUGINS="echo, ./ocr.py:Ocr", ATOMSERVE_CORS__ORIGINS="")
    assert loaded.settings.plugins == ("echo", "./ocr.py:Ocr")
    assert loaded.settings.cors.origins == ()


def test_an_empty_list_of_flags_says_nothing() -> None:
    assert load('plugins = ["echo"]', flags={"plugins": []}).settings.plugins == ("echo",)


def test_the_alias_of_another_server_is_weaker_than_our_own_variable() -> None:
    alone = load(ATOM_WORKERS="3")
    assert alone.settings.api_processes == 3
    assert alone.origins["api_processes"] == "environment ATOM_WORKERS"
    assert load(ATOMSERVE_API_PROCESSES="2", ATOM_WORKERS="3").settings.api_processes == 2
    assert load("api_processes = 4", ATOM_WORKERS="3").settings.api_processes == 3


def test_a_model_is_configured_in_the_file_and_the_environment() -> None:
    loaded = load(
        '[models.fast-ocr]\nplugin = "ocr"\ntimeout = "5s"\n[models.fast-ocr.config]\nlang = "ch"',
        ATOMSERVE_MODELS__FAST_OCR__SLOTS="4",
    )
    model = loaded.settings.models["fast-ocr"]
    assert (model.plugin, model.timeout, model.slots) == ("ocr", 5.0, 4)
    assert model.config == {"lang": "ch"}
    assert (
        loaded.origins["models.fast-ocr.slots"] == "environment ATOMSERVE_MODELS__FAST_OCR__SLOTS"
    )
    assert loaded.origins["models.fast-ocr.grace"] == "default"


@pytest.mark.parametrize(
    ("plugins", "name"),
    [("my-model", "my-model"), ("My.Model=x:Y", "My.Model"), ("a,my__model", "my__model")],
)
def test_the_environment_finds_a_model_by_its_folded_name(plugins: str, name: str) -> None:
    variable = "MY__MODEL" if "__" in name else "MY_MODEL"
    environ = {f"ATOMSERVE_MODELS__{variable}__SLOTS": "2"}
    loaded = load(flags={"plugins": [plugins]}, **environ)
    assert {name: model.slots for name, model in loaded.settings.models.items()} == {name: 2}


def test_a_model_only_the_environment_knows_is_called_in_lower_case() -> None:
    assert load(ATOMSERVE_MODELS__OCR__SLOTS="2").settings.models["ocr"].slots == 2


def test_two_models_that_the_environment_cannot_tell_apart_are_refused() -> None:
    message = refusal("[models.a-b]\n[models.'a.b']", ATOMSERVE_MODELS__A_B__SLOTS="2")
    assert "a-b and a.b" in message


def test_an_empty_model_table_counts() -> None:
    assert list(load("[models.ocr]").settings.models) == ["ocr"]


def test_a_table_in_the_environment_is_json() -> None:
    loaded = load(ATOMSERVE_MODELS__OCR__CONFIG='{"lang": "ch", "size": 3}')
    assert loaded.settings.models["ocr"].config == {"lang": "ch", "size": 3}


def test_the_environment_may_say_one_place_of_a_table() -> None:
    loaded = load(
        '[models.ocr.config]\nlang = "en"\nsize = 3\n[models.ocr.env]\nA = "file"',
        ATOMSERVE_MODELS__OCR__CONFIG__LANG="ch",
        ATOMSERVE_MODELS__OCR__CONFIG__MODEL__SLOTS='["a", "b"]',
        ATOMSERVE_MODELS__OCR__ENV__OMP_NUM_THREADS="2",
        ATOMSERVE_MODELS__OCR__ENV__MY__NAME="x",
    )
    model = loaded.settings.models["ocr"]
    assert model.config == {"lang": "ch", "size": 3, "model": {"slots": ["a", "b"]}}
    assert model.env == {"A": "file", "OMP_NUM_THREADS": "2", "MY__NAME": "x"}
    origin = loaded.origins["models.ocr.config"]
    assert "atomserve.toml" in origin and "ATOMSERVE_MODELS__OCR__CONFIG__LANG" in origin


def test_one_place_of_a_table_is_stronger_than_the_table() -> None:
    given: dict[str, Any] = {
        "ATOMSERVE_MODELS__OCR__CONFIG__LANG": "ch",
        "ATOMSERVE_MODELS__OCR__CONFIG": '{"lang": "en", "size": 3}',
    }
    assert load(**given).settings.models["ocr"].config == {"lang": "ch", "size": 3}


def test_a_model_that_is_called_like_a_place_in_a_table_is_found() -> None:
    models = load(
        flags={"plugins": ["my__config"]}, ATOMSERVE_MODELS__MY__CONFIG__SLOTS="2"
    ).settings.models
    assert models["my__config"].slots == 2


def test_a_broken_table_is_refused_without_its_content() -> None:
    message = refusal(ATOMSERVE_MODELS__OCR__CONFIG='{"password": "hunter2"')
    assert "models.ocr.config" in message
    assert "hunter2" not in message


def test_the_plugins_configuration_reads_the_same_in_every_process() -> None:
    settings = load("[models.m.config]\nday = 2024-05-01\nnested = [{a = 1.5}]").settings
    assert settings.models["m"].config == {"day": "2024-05-01", "nested": [{"a": 1.5}]}
    assert "expected table" in refusal("[models.m.config]\nrate = nan")


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("prot = 1", ["prot (", "atomserve.toml", "did you mean port?"]),
        ("[limits]\nbdy = 1", ["limits.bdy (", "did you mean limits.body?"]),
        ("[limit]\nbody = 1", ["limit (", "did you mean limits?"]),
        ("[models.ocr]\nslot = 1", ["models.ocr.slot (", "did you mean models.ocr.slots?"]),
        ("[models.'a.b']\nslot = 1", ['models."a.b".slot (', 'did you mean models."a.b".slots?']),
        ("'x\\ny' = 1", ["no such setting"]),
        ('"x\\ny" = 1', [r'"x\ny" (', "`atomserve config` lists them all"]),
    ],
)
def test_an_unknown_key_is_named_with_the_closest_setting(toml: str, parts: list[str]) -> None:
    message = refusal(toml)
    assert all(part in message for part in parts), message


def test_an_unknown_variable_is_named_with_the_closest_variable() -> None:
    assert refusal(ATOMSERVE_PROT="1") == (
        "prot (environment ATOMSERVE_PROT): no such setting; did you mean ATOMSERVE_PORT?"
    )
    assert "ATOMSERVE_MODELS__OCR__SLOTS?" in refusal(ATOMSERVE_MODELS__OCR__SLOT="1")
    assert "no such setting" in refusal(ATOMSERVE_LIMITS="1")
    assert "no such setting" in refusal(ATOMSERVE_MODELS="1")


def test_an_unknown_flag_is_refused() -> None:
    assert "did you mean port?" in refusal(flags={"prot": 1})


def test_other_peoples_variables_are_passed_over() -> None:
    loaded = load(
        PATH="/bin",
        ATOM_OTHER="1",
        ATOMSERVE_PORT="tcp://10.0.0.1:8000",
        ATOMSERVE_SERVICE_HOST="10.0.0.1",
        ATOMSERVE_SERVICE_PORT_HTTP="8000",
        ATOMSERVE_PORT_8000_TCP_ADDR="10.0.0.1",
        ATOMSERVE_OCR_SERVICE_HOST="10.0.0.2",
        ATOMSERVE_OCR_PORT="tcp://10.0.0.2:80",
    )
    assert loaded.settings == Settings()


@pytest.mark.parametrize(
    ("toml", "advice"),
    [
        ("port = 65536", "port = 65536 (atomserve.toml:"),
        ("port = 65536", "expected whole number from 0 to 65535"),
        ('port = "8000"', "port = '8000'"),
        ("port = true", "expected whole number"),
        ("slots = 0", "expected whole number, at least 1"),
        ('drain_delay = "-5s"', "expected duration (250ms, 5s, 2m)"),
        ("drain_delay = -1", "drain_delay = -1"),
        ("drain_delay = inf", "drain_delay = inf"),
        ("drain_delay = true", "drain_delay = True"),
        ('drain_delay = "5 parsecs"', "expected duration"),
        ('drain_delay = "1e999s"', "expected duration"),
        ("header_timeout = 0", "more than 0"),
        ('limits.body = "0.3KiB"', "expected size (512KiB, 64MiB, 1GB)"),
        ("limits.body = 0", "at least 1"),
        ("limits = 5", "limits = 5"),
        ("models = 5", "expected a table"),
        ("plugins = 5", "expected list of text"),
        ("plugins = [5]", "expected list of text"),
        ('host = ""', "host = ''"),
        ('prefix = "api"', "expected path that begins with / and does not end with one"),
        ('prefix = "/api/"', "does not end with one"),
        ('prefix = "/api\\n"', "does not end with one"),
        ('log_level = "loud"', '"debug" or "error" or "info" or "warning"'),
        ('cors.origins = ["example.org"]', "https://example.org"),
        ('[models."-x"]\nslots = 1', "a model's name is at most 128"),
        ("[models.m]\nslots = 'x'", "models.m.slots = 'x'"),
        ('certfile = "a.pem"', "certfile (atomserve.toml:"),
        ('certfile = "a.pem"', "set keyfile too"),
        ('keyfile = "a.pem"', "set certfile too"),
        ('[cors]\norigins = ["*"]\ncredentials = true', "list the origins"),
        ('trusted_proxies = ["10.0.0.1/8"]', "has host bits set"),
        ('trusted_proxies = ["proxy"]', "such as 10.0.0.0/8"),
    ],
)
def test_a_bad_value_is_named_with_its_origin_and_what_is_expected(toml: str, advice: str) -> None:
    message = refusal(toml)
    assert "atomserve.toml:" in message
    assert advice in message


def test_a_variable_that_is_no_text_is_refused() -> None:
    assert "host = '\\udcff'" in refusal(ATOMSERVE_HOST="\udcff")


def test_a_bad_value_is_refused_even_where_a_stronger_place_overrides_it() -> None:
    assert "port = 'x'" in refusal("port = 1", ATOMSERVE_PORT="x", flags={"port": 5})


def test_explain_lists_every_setting_as_the_file_would_say_it() -> None:
    loaded = load('[models."a.b"]\ntimeout = 0.25', flags={"plugins": ["echo"]})
    lines = {line.path: line for line in explain(loaded)}
    assert list(lines) == list(loaded.origins)
    assert lines["plugins"][1:] == ('["echo"]', "--plugins")
    assert lines["limits.body"][1:] == ('"64MiB"', "default")
    assert lines['models."a.b".timeout'].value == '"250ms"'
    assert lines['models."a.b".slots'].value == "unset"


def test_what_explain_prints_is_what_the_file_takes() -> None:
    values = [line for line in explain(load()) if line.value != "unset"]
    again = load("\n".join(f"{path} = {value}" for path, value, _ in values))
    assert again.settings == Settings()


def test_settings_travel_to_other_processes() -> None:
    settings = load(
        'drain_delay = 0.1\n[models.m]\ntimeout = "1.5s"\n[models.m.config]\na = [1, {b = "c"}]',
        ATOMSERVE_CORS__ORIGINS="https://example.org,http://localhost:3000",
    ).settings
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


def test_every_setting_says_what_it_is_for() -> None:
    for setting in catalogue().values():
        assert setting.description.endswith("."), setting.key
        assert "|" not in setting.description + setting.form, setting.key


def test_the_page_of_settings_is_up_to_date() -> None:
    page = Path(__file__).parent.parent / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_table(), (
        "write it anew with atomserve.configuration.settings_page.settings_table()"
    )


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_every_duration_reads_back_as_it_was_shown(seconds: float) -> None:
    assert DURATION.parse(DURATION.show(seconds)) == seconds


@given(st.integers(min_value=0))
def test_every_size_and_rate_reads_back_as_it_was_shown(count: int) -> None:
    assert SIZE.parse(SIZE.show(count)) == count
    assert RATE.parse(RATE.show(count)) == count


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert DURATION.parse(text) >= 0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("2m", 120), (" 1.5 h ", 5400), ("7", 7), ("1d", 86400), (3, 3)],
)
def test_durations_read_as_people_mean_them(written: str | float, seconds: float) -> None:
    assert DURATION.parse(written) == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [("64MiB", 2**26), ("1GB", 10**9), ("512kib", 2**19), ("1.5KiB", 1536), ("0", 0), ("9B", 9)],
)
def test_sizes_read_as_people_mean_them(written: str, size: int) -> None:
    assert SIZE.parse(written) == size
