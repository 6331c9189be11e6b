"""The commands for AIGES wrappers, each in a process of its own."""

import base64
import json
import os
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

ROOT = Path(__file__).parent.parent
LEGACY = Path(__file__).with_name("aiges_legacy_schema.json")

DEMO = """
    from aiges.dto import *
    from aiges.sdk import *

    class UserRequest:
        params1 = StringParamField(key="mode", enums=["music", "humming"], value="humming")
        params2 = StringParamField(key="lang", maxLength=44, required=True, value="zh")
        params3 = NumberParamField(key="speed", minimum=0, maximum=10, value=5)
        params4 = IntegerParamField(key="topk", minimum=1, maximum=9, value=3)
        params5 = BooleanParamField(key="vad", default=True)
        input1 = ImageBodyField(key="img", path="/nonexistent.png")
        input2 = StringBodyField(key="txt", value=b"hello")
        input3 = AudioBodyField(key="wav", path="/nonexistent.wav")

    class UserResponse:
        accept1 = StringBodyField(key="result")
        accept2 = ImageBodyField(key="pic")

    class Wrapper(WrapperBase):
        serviceId = "demo"
        version = "v1"
        requestCls = UserRequest()
        responseCls = UserResponse()

        def wrapperInit(self, config):
            return 0

        def wrapperOnceExec(self, params, reqData):
            raise SystemExit("a schema needs no request")
"""

EVERYTHING = """
    import sys, threading
    from aiges_embed import *
    from aiges.sdk import *

    class UserRequest:
        params1 = IntegerParamField(key="topk", value=3)
        input1 = StringBodyField(key="text", value=b"hello")

    class UserResponse:
        accept1 = StringBodyField(key="result")

    def answer(data, status=3):
        return Response([ResponseData("result", data, status=status)])

    class Wrapper(WrapperBase):
        serviceId = "all"
        requestCls = UserRequest()
        responseCls = UserResponse()
        calls = []

        def wrapperInit(self, config):
            print("a wrapper may print")
            self.factor = int(config["factor"])
            return 0

        def wrapperOnceExec(self, params, reqData, usrTag="", persId=0):
            assert type(params["topk"]) is str and params["sid"]
            assert type(reqData.get("text").data) is bytes
            return answer(reqData.get("text").data * self.factor)

        def wrapperOnceExecAsync(self, params, reqData, sid, persId=0):
            threading.Thread(target=lambda: callback(answer(b"later"), sid)).start()
            return 0

        def wrapperCreate(self, params, sid, persId=0, usrTag=""):
            self.calls.append("create")
            self.sid = sid
            return SessionCreateResponse("handle", 0)

        def wrapperWrite(self, handle, datas):
            callback(answer(b"1", 1), self.sid)
            callback(answer(b"2", 2), self.sid)
            return 0

        def wrapperDestroy(self, handle):
            self.calls.append("destroy")
            return 0

        def wrapperFini(self):
            print("calls:", *self.calls)
            return 0
"""


def atomserve(*arguments: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "atomserve", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def write(folder: Path, source: str, toml: str = "") -> Path:
    path = folder / "wrapper.py"
    path.write_text(textwrap.dedent(source))
    if toml:
        (folder / "aiges.toml").write_text(toml)
    return path


def schema(folder: Path, form: str) -> Any:
    return json.loads(
        atomserve("schema", "aiges:./wrapper.py", "--format", form, cwd=folder).stdout
    )


# atomserve schema


def test_the_legacy_document_is_the_sdks(tmp_path: Path) -> None:
    write(tmp_path, DEMO)
    assert schema(tmp_path, "athena") == json.loads(LEGACY.read_text())


def test_the_other_documents_are_valid_and_keep_what_fields_say(tmp_path: Path) -> None:
    write(tmp_path, DEMO)
    second = schema(tmp_path, "athena-v2")["schemainput"]
    own = second["properties"]["parameter"]["properties"]["demo"]["properties"]
    assert own["topk"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 3}
    found = schema(tmp_path, "json-schema")
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["$defs"]["request"] == second
    document = schema(tmp_path, "openapi")
    validate(document)
    assert {"/v1/private/demo", "/v1/models/demo/predict"} <= document["paths"].keys()


def test_an_athena_path_is_described_with_a_request_that_fits(tmp_path: Path) -> None:
    write(tmp_path, DEMO)
    document = schema(tmp_path, "openapi")
    operation = document["paths"]["/v1/private/demo"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    example = content["examples"]["example"]["value"]
    whole = jsonschema.Draft202012Validator(
        {**content["schema"], "components": document["components"]}
    )
    whole.validate(example)
    assert base64.b64decode(example["payload"]["txt"]["text"]) == b"hello"
    assert (
        example["parameter"]["demo"] | {"mode": "humming", "lang": "zh", "topk": 3}
        == (example["parameter"]["demo"])
    )
    assert example["parameter"]["demo"]["pic"]["data_type"] == "image"
    assert not whole.is_valid(example | {"parameter": {"demo": {"topk": 77, "lang": "zh"}}})


def test_a_wrapper_has_a_signature_as_json(tmp_path: Path) -> None:
    write(tmp_path, "print('hello')\n" + textwrap.dedent(DEMO))
    found = schema(tmp_path, "json")
    assert found["name"] == "demo"
    assert found["dialects"]["athena"]["path"] == "/v1/private/demo"
    assert [each["name"] for each in found["inputs"]][:3] == ["img", "txt", "wav"]


def test_a_class_has_a_json_schema_too(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import msgspec\n"
        "from atomserve import Text, Wrapper\n"
        "class Row(msgspec.Struct):\n    word: str\n"
        "class Words(Wrapper):\n"
        "    def predict(self, text: Text, row: Row | None = None) -> list[Row]:\n"
        "        return [Row(word) for word in text.split()]\n"
    )
    done = atomserve("schema", "./model.py", "--format", "json-schema", cwd=tmp_path)
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(found)
    request = jsonschema.Draft202012Validator(found | {"$ref": "#/$defs/request"})
    assert request.is_valid({"text": "a", "row": {"word": "b"}})
    assert not request.is_valid({"text": "a", "row": {"word": 1}})
    assert not request.is_valid({})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["schema", "./wrapper.py", "--format", "athena"], "is for AIGES wrappers"),
        (["check", "./wrapper.py", "--mode", "once"], "is for AIGES wrappers"),
        (["schema", "aiges:nowhere"], "no file or folder"),
        (["check", "./wrapper.py", "--input", "a=b"], "is for AIGES wrappers"),
        (["check", "aiges:wrapper.py", "--input", "a"], "--input a: expected KEY=VALUE"),
        (["check", "aiges:wrapper.py", "-i", "a=@nowhere"], "cannot read nowhere"),
    ],
)
def test_what_does_not_fit_is_one_line_and_code_2(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    write(tmp_path, DEMO)
    done = atomserve(*arguments, cwd=tmp_path, code=2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


# atomserve check


def test_check_tries_all_that_a_wrapper_has(tmp_path: Path) -> None:
    write(tmp_path, EVERYTHING, "[wrapper]\nfactor = 2\n")
    told = atomserve("check", "aiges:./wrapper.py", cwd=tmp_path).stdout
    assert "calls: create destroy" in told
    for words in ("param   topk", "in      text", "hellohello", "later", "all may be served"):
        assert words in told, told
    assert [line.partition(":")[0] for line in told.splitlines() if line.endswith(" ms")] == [
        "once",
        "async",
        "stream",
    ]


def test_check_gives_programs_json_alone(tmp_path: Path) -> None:
    write(tmp_path, EVERYTHING, "[wrapper]\nfactor = 1\n")
    done = atomserve("check", "aiges:./wrapper.py", "--json", "--mode", "stream", cwd=tmp_path)
    assert "a wrapper may print" in done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["name"], report["generation"]) == (True, "all", "G2")
    (trial,) = report["trials"]
    assert trial["params"]["topk"] == "3"
    assert trial["sent"][0] == {
        "key": "text",
        "type": "text",
        "status": "once",
        "len": 5,
        "text": "hello",
    }
    given = [piece for answer in trial["answers"] for piece in answer["list"]]
    assert [(piece["text"], piece["status"]) for piece in given] == [
        ("1", "continue"),
        ("2", "end"),
    ]


def once(body: str, tail: str = "") -> str:
    lines = [
        "from aiges.dto import *",
        "from aiges.sdk import *",
        "class UserResponse:",
        '    accept1 = StringBodyField(key="result")',
        "class Wrapper(WrapperBase):",
        "    responseCls = UserResponse()",
        "    def wrapperInit(self, config): return 0",
        "    def wrapperError(self, ret): return 'no licence'",
        f"    def wrapperOnceExec(self, params, reqData): {body}",
        tail,
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (once("return Response(error_code=7)"), "once: no licence;code=7"),
        (once("raise ValueError('no model')"), "once: ValueError: no model"),
        (once("return Response([ResponseData('x', b'y')])"), "rule 8: x"),
        (
            once("return 5", "    def wrapperInit(self, config): return 3"),
            "init: no licence;code=3",
        ),
        (once("return 5", "    def __init__(self): raise OSError('no file')"), "OSError: no file"),
        ("import nothing_here", "cannot be imported"),
    ],
)
def test_check_fails_with_what_is_wrong(tmp_path: Path, source: str, said: str) -> None:
    write(tmp_path, source)
    done = atomserve("check", "aiges:.", cwd=tmp_path, code=1)
    assert said in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith("atomserve: error: ")


def test_what_is_served_all_the_same_is_told_and_no_failure(tmp_path: Path) -> None:
    write(tmp_path, once("return Response([ResponseData('result', 'text')])"))
    told = atomserve("check", "aiges:.", cwd=tmp_path).stdout
    assert "rule 4: result: the data should be bytes, not str (served all the same)" in told


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys; sys.exit(0)", "once: SystemExit: 0"),
        ("import time; time.sleep(60)", "once: TimeoutError: has not come back within"),
        ("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)", "main thread"),
    ],
)
def test_what_fails_or_hangs_when_it_is_served_fails_the_check(
    tmp_path: Path, body: str, said: str
) -> None:
    write(tmp_path, once(body))
    done = atomserve("check", "aiges:.", "--timeout", "0.5", cwd=tmp_path, code=1)
    assert said in done.stderr


def test_check_ends_though_the_wrappers_threads_do_not(tmp_path: Path) -> None:
    threads = "from threading import Event, Thread\n"
    tail = "    def wrapperInit(self, config): Thread(target=Event().wait, name='t').start()"
    write(tmp_path, threads + once("return Response([ResponseData('result', b'')])", tail))
    told = atomserve("check", "aiges:.", cwd=tmp_path).stdout
    assert "note: t still runs after wrapperFini" in told


def test_check_of_a_class_gives_programs_json(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from atomserve import Example, Wrapper\n"
        "class Double(Wrapper):\n"
        "    examples = (Example(inputs={'x': 2}, output=4),)\n"
        "    def predict(self, x: int) -> int:\n"
        "        print('loud')\n"
        "        return x * 2\n"
    )
    report = json.loads(atomserve("check", "./model.py", "--json", cwd=tmp_path).stdout)
    assert report["ok"]
    assert [step["what"] for step in report["steps"]] == ["load", "example 1"]
    broken = (tmp_path / "model.py").read_text().replace("* 2", "* 3")
    (tmp_path / "model.py").write_text(broken)
    report = json.loads(atomserve("check", "./model.py", "--json", cwd=tmp_path, code=1).stdout)
    assert not report["ok"]
    assert report["failure"]


# atomserve exec

MAIN = """
    if __name__ == "__main__":
        import sys
        m = Wrapper()
        m.schema()
        m.run()
        print(sys.argv, __file__)
"""


def test_exec_runs_the_script_with_the_names_of_aiges(tmp_path: Path) -> None:
    answered = once("return Response([ResponseData('result', b'')])")
    write(tmp_path, answered + textwrap.dedent(MAIN))
    done = atomserve("exec", tmp_path / "wrapper.py", "--flag", "x", cwd=ROOT)
    path = str(tmp_path / "wrapper.py")
    assert done.stdout.strip() == f"{[path, '--flag', 'x']} {path}"
    assert '"serviceId"' in done.stderr
    assert "the wrapper has been verified" in done.stderr


def test_exec_fails_when_a_run_does(tmp_path: Path) -> None:
    write(tmp_path, once("return Response(error_code=7)") + textwrap.dedent(MAIN))
    done = atomserve("exec", tmp_path, cwd=ROOT, code=1)
    assert "no licence;code=7" in done.stderr
    write(tmp_path, "import aiges.sdk, sys\nsys.exit(5)")
    atomserve("exec", "wrapper.py", cwd=tmp_path, code=5)


# atomserve new, atomserve pack


def test_a_new_project_is_right_and_runs(tmp_path: Path) -> None:
    atomserve("new", "Music-v2", "--kind", "aiges", cwd=tmp_path)
    project = tmp_path / "Music-v2"
    assert "aiges:wrapper/wrapper.py" in (project / "Dockerfile").read_text()
    report = json.loads(atomserve("check", "aiges:Music-v2", "--json", cwd=tmp_path).stdout)
    assert (report["ok"], report["path"]) == (True, "/v1/private/Music-v2")
    assert not [finding for trial in report["trials"] for finding in trial["findings"]]
    (piece,) = report["trials"][0]["answers"][0]["list"]
    assert json.loads(piece["text"])["width"] == 32
    request = json.loads((project / "wrapper" / "test_data" / "request.json").read_text())
    document = json.loads(
        atomserve("schema", "aiges:Music-v2", "--format", "json-schema", cwd=tmp_path).stdout
    )
    jsonschema.validate(request, document | {"$ref": "#/$defs/request"})
    done = atomserve("exec", "wrapper/wrapper.py", cwd=project)
    assert "the wrapper has been verified" in done.stderr


@pytest.mark.parametrize("name", ["no name", "../up", "1st"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    done = atomserve("new", name, "--kind", "aiges", cwd=tmp_path, code=2)
    assert "is no name for a service" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_same_project_is_the_same_archive(tmp_path: Path) -> None:
    packed = []
    for number, stamp in enumerate((1_000_000_000, 1_500_000_000)):
        project = tmp_path / str(number) / "project"
        names = ("wrapper/wrapper.py", "wrapper/a/data.bin", "wrapper/b/data.bin", "README.md")
        for name in names if number else reversed(names):
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            os.utime(path, (stamp, stamp))
        for ignored in ("wrapper/__pycache__/x.pyc", ".git/HEAD", "env/pyvenv.cfg", "a.log"):
            path = project / ignored
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("other" * number)
        (project / "wrapper" / "link").symlink_to("a/data.bin")
        target = project / "out" / "packed.tar.gz"
        atomserve("pack", project, "-o", target, cwd=tmp_path)
        packed.append(target.read_bytes())
        target.unlink()
    assert packed[0] == packed[1]
    target = tmp_path / "found.tar.gz"
    target.write_bytes(packed[0])
    with tarfile.open(target) as archive:
        assert archive.getnames() == [
            "README.md",
            "wrapper/a/data.bin",
            "wrapper/b/data.bin",
            "wrapper/link",
            "wrapper/wrapper.py",
        ]
        assert archive.getmember("wrapper/link").linkname == "a/data.bin"


def test_an_archive_does_not_hold_itself_nor_what_is_outside(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    write(project, DEMO)
    for _ in range(2):
        assert (
            "files 1," in atomserve("pack", project, "-o", "project/a.tar.gz", cwd=tmp_path).stdout
        )
    (project / "secret").symlink_to("/etc/hostname")
    done = atomserve("pack", "project", cwd=tmp_path, code=2)
    assert "leads out of" in done.stderr
    assert not (tmp_path / "project.tar.gz").exists()
    done = atomserve("pack", ".", cwd=tmp_path, code=2)
    assert "neither a wrapper.py nor a pyproject.toml" in done.stderr
