"""A `wrapper.py` is imported, configured and tried as its own engine would."""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from atomserve.compat.aiges.configuration import parse_config, read_config, text_of, texts
from atomserve.compat.aiges.loader import find_file, loaded
from atomserve.compat.aiges.local import trial, trials
from atomserve.compat.aiges.shim.aiges.sdk import WrapperBase
from atomserve.errors import ConfigError, PluginError

OCR = """
    import os, sys
    from pathlib import Path
    try:
        from aiges_embed import ResponseData, Response, DataListCls
    except:
        from aiges.dto import ResponseData, Response, DataListCls
    from aiges.sdk import *
    from aiges.core.types import *
    from aiges.utils.log import log
    import neighbour

    class UserRequest(object):
        params1 = StringParamField(key="mode", value="upper")
        input1 = StringBodyField(key="text", value=b"hello")

    class UserResponse(object):
        accept1 = StringBodyField(key="result")

    class Wrapper(WrapperBase):
        serviceId = "ocr"
        version = "v2"
        requestCls = UserRequest()
        responseCls = UserResponse()

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.where = Path("here.txt").read_text()

        def wrapperInit(self, config):
            self.config = config
            return 0

        def wrapperOnceExec(self, params, reqData):
            r = Response()
            if params["mode"] != "upper":
                return r.response_err(7)
            l = ResponseData()
            l.key, l.status, l.type = "result", Once, DataText
            l.setData(neighbour.shout(reqData.get("text").data))
            r.list = [l]
            return r

        def wrapperError(cls, ret):
            return "wrong mode"

        def wrapperFini(cls):
            self_fini.append(1)
            return 0

    self_fini = []
    if __name__ == "__main__":
        raise SystemExit("this is not a script")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my-ocr"
    folder.mkdir()
    (folder / "wrapper.py").write_text(textwrap.dedent(OCR))
    (folder / "neighbour.py").write_text("def shout(data): return data.upper()\n")
    (folder / "here.txt").write_text("stands in its own folder")
    yield folder
    sys.modules.pop("neighbour", None)


def test_a_wrapper_is_loaded_unmodified(project: Path) -> None:
    before, path = Path.cwd(), list(sys.path)
    with loaded(project) as found:
        assert sys.modules["wrapper"] is found.module
        assert sys.path[0] == os.getcwd() == str(project)
        assert (found.generation, found.declared.service_id) == ("G2", "ocr")
        assert found.declared.version == "v2"
        assert found.declared.path == "/v1/private/ocr"
        bound = found.make()
        assert bound.wrapper.where == "stands in its own folder"
        outcome = trial(bound, found.declared, {"a": 1})
        assert outcome.ok, outcome
        assert [item.data for item in outcome.responses[0].list] == [b"HELLO"]
        assert bound.wrapper.config == {"a": "1"}
        assert found.module.self_fini == [1]
    assert Path.cwd() == before
    assert sys.path == path
    assert "wrapper" not in sys.modules
    assert "aiges" not in sys.modules


def test_a_project_folder_is_found_by_its_wrapper(project: Path, tmp_path: Path) -> None:
    assert find_file(project) == project / "wrapper.py"
    nested = tmp_path / "created"
    nested.mkdir()
    (project).rename(nested / "wrapper")
    assert find_file(nested) == nested / "wrapper" / "wrapper.py"


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere", "no file or folder"), ("", "no wrapper.py")]
)
def test_a_folder_without_a_wrapper_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(PluginError, match=f"there is {reason}"):
        find_file(tmp_path / name)


@pytest.mark.parametrize(
    "source",
    ["raise ValueError('no model')", "import nothing_here", "def (", "raise SystemExit(3)"],
)
def test_a_wrapper_that_cannot_be_imported_is_one_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "wrapper.py").write_text(source)
    before = Path.cwd()
    with (
        pytest.raises(PluginError, match=r"wrapper\.py: cannot be imported: \w+"),
        loaded(tmp_path),
    ):
        pass
    assert Path.cwd() == before
    assert "wrapper" not in sys.modules


def test_one_process_holds_one_wrapper(project: Path) -> None:
    with (
        loaded(project),
        pytest.raises(PluginError, match="one process holds one"),
        loaded(project),
    ):
        pass


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("music/wrapper.py", "music"),
        ("music/wrapper/wrapper.py", "music"),
        ("music/song.py", "song"),
        ("my music/wrapper.py", "my_music"),
    ],
)
def test_a_wrapper_without_an_id_is_called_after_its_project(
    tmp_path: Path, place: str, name: str
) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text("def wrapperOnceExec(params, reqData): return 0")
    with loaded(file) as found:
        assert found.declared.service_id == name
        assert found.declared.open


def test_a_helper_of_the_wrappers_own_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "python_wrapper.py").write_text("mine = True")
    (tmp_path / "wrapper.py").write_text(
        "import python_wrapper\nassert python_wrapper.mine\n"
        "def wrapperOnceExec(params, reqData): return 0"
    )
    try:
        with loaded(tmp_path) as found:
            assert found.generation == "G1"
    finally:
        sys.modules.pop("python_wrapper", None)


# Local runs.


def test_a_local_run_tells_the_users_code(project: Path) -> None:
    with loaded(project) as found:
        found.declared.fields.params[0].value = "lower"
        outcome = trial(found.make(), found.declared, {})
    assert not outcome.ok
    assert outcome.failure == "wrong mode;code=7"


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (
            "def wrapperInit(config): return 3\ndef wrapperError(ret): return 'no licence'",
            "init: no",
        ),
        ("def wrapperOnceExec(params, reqData): raise KeyError('x')", "KeyError"),
        ("def wrapperOnceExec(params, reqData): return None", "BadAnswer"),
    ],
)
def test_a_local_run_tells_what_failed(tmp_path: Path, body: str, failure: str) -> None:
    source = "def wrapperOnceExec(params, reqData): return 0\n" + body
    (tmp_path / "wrapper.py").write_text(source)
    with loaded(tmp_path) as found:
        outcome = trial(found.make(), found.declared, {})
    assert outcome.failure.startswith(failure)


@pytest.mark.parametrize(
    ("body", "patience", "note"),
    [
        ("return 3", 10.0, "fini: still busy;code=3"),
        ("raise OSError('no disk')", 10.0, "fini: OSError: no disk"),
        ("ended.wait()", 0.1, "fini: has not come back within 0.1 s"),
    ],
)
def test_a_wrapper_that_does_not_finish_is_told_and_left(
    tmp_path: Path, body: str, patience: float, note: str
) -> None:
    (tmp_path / "wrapper.py").write_text(
        "import threading\n"
        "ended = threading.Event()\n"
        "def wrapperOnceExec(usrTag, params, reqData, respData, psrIds, psrCnt):\n"
        "    respData.append({'key': 'a', 'data': b'', 'len': 0, 'status': 3, 'type': 0})\n"
        "    return 0\n"
        "def wrapperError(ret): return 'still busy'\n"
        f"def wrapperFini(): {body}\n"
    )
    with loaded(tmp_path) as found:
        done = trials(found.make(), found.declared, {}, modes=["once"], patience=patience)
        found.module.ended.set()
    assert done.notes == [note]
    assert done.ok, done


STREAM = """
    from aiges_embed import *
    from aiges.sdk import WrapperBase, StringBodyField
    from aiges.stream import StreamHandleThread

    class UserRequest:
        input1 = StringBodyField(key="text", value=b"ab")

    class Threads(StreamHandleThread):
        def infer(self, req):
            for status, byte in zip((0, 2), req.get("text").data):
                item = ResponseData("out", bytes([byte]), status=status)
                self.session_thread.callback_fn(Response([item]), self.session_thread.sid)
            self.session_thread.reset()

    class Wrapper(WrapperBase):
        requestCls = UserRequest()
        destroyed = []

        def wrapperInit(self, config):
            self.session.init_wrapper_config(config)
            self.session.init_handle_pool("thread", 1, Threads)
            return 0

        def wrapperCreate(self, params, sid, persId=0):
            handle = self.session.get_idle_handle()
            session = self.session.get_session(handle=handle)
            session.setup_sid(sid)
            session.setup_params(params)
            session.setup_callback_fn(callback)
            return SessionCreateResponse(handle, 0)

        def wrapperWrite(self, handle, req, sid):
            self.session.get_session(handle=handle).in_q.put(req)
            return 0

        def wrapperDestroy(self, handle):
            self.session.set_idle_session(handle)
            self.destroyed.append(handle)
            return 0

        def wrapperFini(self):
            return 0 if self.session.close() else 1
"""


def test_a_stream_is_tried_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "wrapper.py").write_text(textwrap.dedent(STREAM))
    with loaded(tmp_path) as found:
        bound = found.make()
        outcome = trial(bound, found.declared, {}, stream=True)
        assert outcome.ok, outcome
        data = [bytes(item.data) for response in outcome.responses for item in response.list]
        assert data == [b"a", b"b"]
        assert len(bound.wrapper.destroyed) == 1


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ("def wrapperCreate(params, sid): return -1", ";code=-1"),
        (
            "def wrapperCreate(params, sid): return sid\ndef wrapperWrite(handle, req): return 4",
            ";code=4",
        ),
        (
            "def wrapperCreate(params, sid): return sid\ndef wrapperWrite(handle, req): pass",
            "TimeoutError",
        ),
    ],
)
def test_a_stream_that_fails_is_told(tmp_path: Path, body: str, failure: str) -> None:
    (tmp_path / "wrapper.py").write_text(body)
    with loaded(tmp_path) as found:
        outcome = trial(found.make(), found.declared, {}, stream=True, patience=0.1)
    assert outcome.failure.startswith(failure)


def test_results_that_are_read_are_a_stream_too(tmp_path: Path) -> None:
    (tmp_path / "wrapper.py").write_text(
        textwrap.dedent(
            """
            left = [
                None,
                {"key": "a", "data": b"1", "status": 1},
                {"key": "a", "data": b"2", "status": 2},
            ]
            def wrapperCreate(usrTag, params, psrIds, psrCnt): return usrTag
            def wrapperWrite(handle, datas): return 0
            def wrapperRead(handle):
                item = left.pop(0)
                return item and [item]
            """
        )
    )
    with loaded(tmp_path) as found:
        outcome = trial(found.make(), found.declared, {}, stream=True)
    assert outcome.ok, outcome
    assert [response.list[0].data for response in outcome.responses] == [b"1", b"2"]


def test_run_logs_the_outcome(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with loaded(project) as found, caplog.at_level("INFO", "aiges"):
        found.make().wrapper.run()
    assert "the wrapper has been verified" in caplog.messages


def test_run_of_an_empty_wrapper_is_refused() -> None:
    with pytest.raises(PluginError, match="no method to run"):
        WrapperBase().run()


# Configuration.


def test_an_aiges_toml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "aiges.toml"
    path.write_text(
        textwrap.dedent(
            """
            [svc]
            host = "127.0.0.1"
            port = 5090
            http_listen = "0.0.0.0:1888"
            [aiges]
            sessMode = true
            asyncMode = false
            headerPass = "a;b"
            wrapperDelayDetectPeriod = 30
            numaNode = -1
            colour = "red"
            [wrapper]
            "common.lic" = 10
            log.level = "debug"
            rate = 0.5
            big = 1e21
            flag = true
            whole = 2.0
            [fc]
            able = 1
            max = 4
            ttl = 10000
            [ws]
            readTimeout = 15
            [log]
            anything = 1
            [strange]
            key = 1
            """
        )
    )
    config = read_config(path)
    assert config.wrapper == {
        "common.lic": "10",
        "log.level": "debug",
        "rate": "0.5",
        "big": "1000000000000000000000",
        "flag": "true",
        "whole": "2",
    }
    assert config.licences == 4
    assert list(config.idle) == ["fc.ttl", "aiges.wrapperDelayDetectPeriod"]
    assert (config.stream, config.asynchronous) == (True, False)
    assert (config.read_timeout, config.session_timeout) == (15.0, None)
    assert (config.header_pass, config.listen) == (("a", "b"), "0.0.0.0:1888")
    assert config.unknown == ("aiges.colour", "strange")


@pytest.mark.parametrize(
    "text", ["[wrapper]\nlist = [1]", "not toml", "wrapper = 1", "[fc]\nmax = 'many'"]
)
def test_a_wrong_aiges_toml_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "aiges.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_config(path)


def test_a_missing_aiges_toml_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        read_config(tmp_path / "none.toml")


def test_an_empty_configuration_says_nothing() -> None:
    config = parse_config({})
    assert (config.wrapper, config.licences, config.asynchronous) == ({}, None, None)
    assert not config.unknown


def test_settings_win_over_the_file() -> None:
    assert texts({"a": 1, "b": {"c": 2}}, {"b.c": 3}) == {"a": "1", "b.c": "3"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0.5, "0.5"),
        (1.0, "1"),
        (1e-7, "0.0000001"),
        (100.0, "100"),
        (-3, "-3"),
        (True, "true"),
        (False, "false"),
        ("x", "x"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_scalars_are_written_as_wrappers_expect(value: Any, text: str) -> None:
    assert text_of(value) == text
