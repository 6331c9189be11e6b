"""The command line: one line for a mistake, tables for people, JSON for programs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import live
import pytest
from PIL import Image as Pictures

ROOT = Path(__file__).parent.parent

MODEL = '''
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from atomserve import BadRequest, Blob, Example, Image, Tensor, Text, Wrapper


class Row(msgspec.Struct):
    word: str
    size: int


class Words(Wrapper):
    """Measure words."""

    examples = (Example(name="two", inputs={"text": "ab c"}),)

    def predict(self, text: Text, order: Literal["asis", "sorted"] = "asis") -> list[Row]:
        if text == "bad":
            raise BadRequest("not this word")
        words = text.split()
        return [Row(word, len(word)) for word in (sorted(words) if order == "sorted" else words)]


class Flip(Wrapper):
    """Turn a picture upside down."""

    def predict(self, image: Image) -> Image:
        return image[::-1]


class Sizes(Wrapper):
    """Say how large two files are."""

    def predict(self, first: Blob, second: Blob, unit: float = 1.0) -> dict[str, float]:
        return {"first": len(first) / unit, "second": len(second) / unit}


class Double(Wrapper):
    """Double numbers."""

    def predict(
        self, numbers: Annotated[NDArray[np.float32], Tensor("float32", (-1,))]
    ) -> Annotated[NDArray[np.float32], Tensor("float32", (-1,))]:
        return numbers * 2


class Ticks(Wrapper):
    """Count."""

    def predict(self, to: Annotated[int, msgspec.Meta(ge=0, le=9)]) -> Iterator[int]:
        for number in range(to):
            if number == 5:
                raise BadRequest("no more than five")
            yield number


class Frames(Wrapper):
    """Repeat a picture."""

    def predict(self, image: Image, times: int) -> Iterator[Image]:
        for _ in range(times):
            yield image


class Broken(Wrapper):
    examples = (Example(inputs={"x": 1}, output=3),)

    def predict(self, x: int) -> int:
        return x + 1


class Untyped(Wrapper):
    def predict(self, x):
        return x
'''


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120"} | more


def atomserve(
    *arguments: str, cwd: Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atomserve", *arguments],
        cwd=cwd,
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of all models, as `atomserve run` prints it."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "model.py").write_text(MODEL)
    names = ("Words", "Flip", "Sizes", "Double", "Ticks", "Frames")
    plugins = ",".join(f"./model.py:{name}" for name in names)
    command = [sys.executable, "-m", "atomserve", "run", "--plugins", plugins, "--port", "0"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield address(process)
        finally:
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    assert "Stopped." in printed


def address(process: subprocess.Popen[str]) -> str:
    """Read what a server prints until it is ready."""
    assert process.stdout is not None
    first = process.stdout.readline()
    for line in process.stdout:
        if line.startswith("Ready"):
            return first.split()[3]
    raise AssertionError(f"never ready: {first}")


def line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one line that a failure prints."""
    assert done.returncode == code, done
    (found,) = done.stderr.splitlines()
    assert found.startswith("atomserve: error: ")
    return found.removeprefix("atomserve: error: ")


def cells(printed: str) -> list[list[str]]:
    return [row.split() for row in printed.splitlines() if row and not row.startswith("─")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--bogus"], "No such option: --bogus"),
        (["run", "--port", "none"], "port = 'none' (--port): expected whole number"),
        (["run", "--plugins", "nope"], 'no plugin "nope" is installed'),
        (["run"], "nothing to serve"),
        (["run", "--plugins", "./model.py"], "expected one subclass of Wrapper"),
        (["run", "--plugins", "./model.py:Untyped"], "has no annotation"),
        (["run", "--config", "absent.toml"], "cannot be read"),
        (["nosuch"], "No such command 'nosuch'"),
        (["new", "Not A Name"], "is no name for a plugin"),
        (["schema", "./model.py:Nothing"], "has no Nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_one_line_and_code_2(
    folder: Path, arguments: Sequence[str], said: str
) -> None:
    assert said in line(atomserve(*arguments, cwd=folder), 2)


def test_no_arguments_show_the_commands(folder: Path) -> None:
    done = atomserve(cwd=folder)
    assert done.returncode == 0
    for command in (
        "run",
        "plugins",
        "new",
        "check",
        "schema",
        "call",
        "config",
        "pack",
        "seal",
        "unseal",
        "exec",
    ):
        assert command in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "plugins",
        "new",
        "check",
        "schema",
        "call",
        "config",
        "pack",
        "seal",
        "unseal",
        "exec",
    ],
)
def test_every_command_shows_how_to_call_it(folder: Path, command: str) -> None:
    done = atomserve(command, "--help", cwd=folder)
    assert done.returncode == 0
    assert f"• atomserve {command}" in done.stdout


def test_the_version_is_the_distributions(folder: Path) -> None:
    from importlib.metadata import version

    assert atomserve("--version", cwd=folder).stdout == f"atomserve {version('atomserve')}\n"


def test_output_that_nobody_reads_leaves_no_traceback(folder: Path) -> None:
    command = f"{sys.executable} -m atomserve config --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_config_tells_each_value_with_its_origin(folder: Path) -> None:
    (folder / "atomserve.toml").write_text('[limits]\nbody = "1MiB"\n')
    done = atomserve("config", "--port", "81", "--json", cwd=folder)
    found = json.loads(done.stdout)
    assert found["port"] == {"value": "81", "origin": "--port"}
    assert found["limits.body"]["value"] == '"1MiB"'
    assert found["limits.body"]["origin"].startswith("atomserve.toml:")
    assert ["port", "81", "--port"] in cells(atomserve("config", "--port", "81", cwd=folder).stdout)


def test_plugins_lists_without_importing(folder: Path) -> None:
    metadata = folder / "thing-1.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.5\n")
    (metadata / "entry_points.txt").write_text("[atomserve.plugins]\nthing = thing:Thing\n")
    (folder / "thing.py").write_text("open('imported', 'w')\nraise RuntimeError('on purpose')\n")
    rows = json.loads(atomserve("plugins", "--json", cwd=folder).stdout)
    wanted = {"name": "thing", "distribution": "thing", "version": "1.5", "target": "thing:Thing"}
    assert wanted in rows
    assert not (folder / "imported").exists()
    done = atomserve("plugins", "--check", "--json", cwd=folder)
    states = {row["name"]: row["state"] for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert "on purpose" in states["thing"]


def test_check_shows_the_signature_and_runs_the_examples(folder: Path) -> None:
    done = atomserve("check", "./model.py:Words", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "words: Measure words." in done.stdout
    assert ["in", "text", "text", "text/plain", "yes"] in cells(done.stdout)
    assert "example two: ok" in done.stdout


def test_check_fails_with_the_plugins_mistake(folder: Path) -> None:
    done = atomserve("check", "./model.py:Broken", cwd=folder)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "example number 1" in last
    assert "expected 3 ± 0.0, found 2" in last


def test_schema_is_openapi_or_the_signature(folder: Path) -> None:
    document = json.loads(atomserve("schema", "./model.py:Words", cwd=folder).stdout)
    assert document["openapi"].startswith("3.1")
    assert "/v1/models/words/predict" in document["paths"]
    signature = json.loads(
        atomserve("schema", "a=./model.py:Words", "--format", "json", cwd=folder).stdout
    )
    assert signature["name"] == "a"
    assert [field["name"] for field in signature["inputs"]] == ["text", "order"]


def test_call_shows_objects_as_a_table(folder: Path, server: str) -> None:
    done = atomserve("call", server, "words", "--input", "text=one three", cwd=folder)
    assert cells(done.stdout) == [["word", "size"], ["one", "3"], ["three", "5"]]


def test_call_gives_programs_the_json_as_it_came(folder: Path, server: str) -> None:
    done = atomserve(
        "call", server, "words", "-i", "text=b a", "-i", "order=sorted", "--json", cwd=folder
    )
    assert json.loads(done.stdout) == [{"word": "a", "size": 1}, {"word": "b", "size": 1}]


def test_call_speaks_http_2(folder: Path, server: str) -> None:
    done = atomserve("call", server, "words", "--http2", "-i", "text=one", "--json", cwd=folder)
    assert json.loads(done.stdout) == [{"word": "one", "size": 3}]


def test_call_reads_text_from_a_file_and_from_its_input(folder: Path, server: str) -> None:
    (folder / "text.txt").write_text("from file")
    done = atomserve("call", server, "words", "-i", "text=@text.txt", "--json", cwd=folder)
    assert [row["word"] for row in json.loads(done.stdout)] == ["from", "file"]
    done = atomserve("call", server, "words", "-i", "text=@-", "--json", cwd=folder, stdin="piped")
    assert [row["word"] for row in json.loads(done.stdout)] == ["piped"]


def test_call_sends_one_file_raw_and_several_as_a_form(folder: Path, server: str) -> None:
    (folder / "a.bin").write_bytes(b"\0" * 10)
    (folder / "b.bin").write_bytes(b"\0" * 30)
    files = ("-i", "first=@a.bin", "-i", "second=@b.bin")
    done = atomserve("call", server, "sizes", *files, "-i", "unit=10", cwd=folder)
    assert done.stdout == "first: 1\nsecond: 3\n"


def test_call_describes_and_saves_a_picture(folder: Path, server: str) -> None:
    Pictures.new("RGB", (8, 4), "red").save(folder / "in.png")
    done = atomserve("call", server, "flip", "-i", "image=@in.png", "-o", "out.png", cwd=folder)
    assert done.stdout.startswith("image/png, ")
    assert "8x4 pixels" in done.stdout
    with Pictures.open(folder / "out.png") as found:
        assert found.size == (8, 4)


def test_call_shows_a_tensor(folder: Path, server: str) -> None:
    done = atomserve("call", server, "double", "-i", "numbers=[1, 2.5]", cwd=folder)
    assert "float32" in done.stdout
    assert "[2. 5.]" in done.stdout


def test_call_shows_a_stream_item_by_item(folder: Path, server: str) -> None:
    assert atomserve("call", server, "ticks", "-i", "to=3", cwd=folder).stdout == "0\n1\n2\n"
    done = atomserve("call", server, "ticks", "-i", "to=2", "--json", cwd=folder)
    assert [json.loads(row) for row in done.stdout.splitlines()] == [
        {"data": 0},
        {"data": 1},
        {"end": True},
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["words", "-i", "text=bad"], "not this word"),
        (["words", "-i", "text=a", "-i", "order=none"], "$.order"),
        (["nothing"], "no model 'nothing' is served here"),
        (["ticks", "-i", "to=8"], "no more than five"),
    ],
)
def test_a_call_that_fails_is_one_line_and_code_1(
    folder: Path, server: str, arguments: Sequence[str], said: str
) -> None:
    assert said in line(atomserve("call", server, *arguments, cwd=folder), 1)


def test_an_input_that_the_model_does_not_have_is_named(folder: Path, server: str) -> None:
    done = atomserve("call", server, "words", "-i", "txt=a", cwd=folder)
    assert "inputs: text, order" in line(done, 2)


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_run_prints_where_sessions_are(folder: Path, executor: str) -> None:
    plugins = ("--plugins", "./model.py:Words,echo_session", "--executor", executor)
    with live.live(folder, *plugins) as running:
        place = f"WS ws://127.0.0.1:{running.port}/v1/models/echo_session/session"
        line = running.await_line(lambda line: "echo_session  WS" in line)
        assert line.endswith(place)


def test_an_input_that_is_given_twice_is_refused(folder: Path, server: str) -> None:
    done = atomserve("call", server, "words", "-i", "text=a", "-i", "text=b", cwd=folder)
    assert line(done, 2) == "--input text: is given twice"


def test_call_describes_and_saves_the_pictures_of_a_stream(folder: Path, server: str) -> None:
    Pictures.new("RGB", (8, 4), "red").save(folder / "in.png")
    given = ("-i", "image=@in.png", "-i", "times=2")
    done = atomserve("call", server, "frames", *given, "-o", "out.png", cwd=folder)
    rows = done.stdout.splitlines()
    assert len(rows) == 2
    assert all(row.startswith("image/png, ") and "8x4 pixels" in row for row in rows)
    for number in (1, 2):
        with Pictures.open(folder / f"out-{number}.png") as found:
            assert found.size == (8, 4)


def test_a_stream_in_a_form_that_there_is_not_says_which_there_is(
    folder: Path, server: str
) -> None:
    given = ("-i", "to=1", "--accept", "application/json")
    done = atomserve("call", server, "ticks", *given, cwd=folder)
    assert "ask with Accept: application/x-ndjson" in line(done, 1)


def test_a_tls_failure_is_told_as_one(folder: Path, server: str) -> None:
    done = atomserve("call", server.replace("http:", "https:"), "words", cwd=folder)
    assert "no TLS there" in line(done, 1)
    chain, key = live.certificate(folder)
    tls = ("--certfile", chain, "--keyfile", key)
    with live.live(folder, "--plugins", "./model.py:Words", *tls) as secure:
        done = atomserve("call", secure.url, "words", cwd=folder)
        assert "its certificate is not trusted: self" in line(done, 1)


def test_a_server_that_is_not_there_is_one_line(folder: Path) -> None:
    done = atomserve("call", "http://127.0.0.1:1", "words", cwd=folder)
    assert line(done, 1) == "nothing answers at http://127.0.0.1:1"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_new_plugin_installs_passes_mypy_and_its_own_test(tmp_path: Path) -> None:
    assert atomserve("new", "word-count", cwd=tmp_path).returncode == 0
    project = tmp_path / "word-count"
    tools = tmp_path / "venv" / "bin"
    shared = [path for path in sys.path if path.endswith("site-packages")]

    def run(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=project,
            env=environment(MYPYPATH=str(ROOT), PYTHONPATH=os.pathsep.join([str(ROOT), *shared])),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    python = str(tools / "python")
    run(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", ".")
    names = [row["name"] for row in json.loads(run(python, "-m", "atomserve", "plugins", "--json"))]
    assert "word-count" in names
    assert "may be served" in run(python, "-m", "atomserve", "check", "word-count")
    run(python, "-m", "mypy")
    assert "2 passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
