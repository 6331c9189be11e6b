"""Every signature, object and import of AIGES wrappers works: the tables of their contract."""

import importlib
import itertools
import json
import logging
import queue
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from atomserve.compat.aiges.answers import Piece, code_of, created_of, pieces_of, response_of
from atomserve.compat.aiges.binding import ENGINE_CODES, Bound
from atomserve.compat.aiges.finder import installed
from atomserve.compat.aiges.generations import construct, find
from atomserve.compat.aiges.routing import ROUTES, Routes
from atomserve.compat.aiges.shim.aiges import dto
from atomserve.compat.aiges.shim.aiges.concurrent.fixpool import FixedPool
from atomserve.compat.aiges.shim.aiges.dto import (
    DataListCls,
    DataListNode,
    Response,
    ResponseData,
    SessionCreateResponse,
)
from atomserve.compat.aiges.shim.aiges.sdk import WrapperBase
from atomserve.compat.aiges.shim.aiges.utils import log as shim_log
from atomserve.compat.aiges.shim.aiges.worker import InferClass, Worker
from atomserve.compat.aiges.shim.python_wrapper import DataStatus, WrapperData
from atomserve.errors import BadAnswer, PluginError

SID, TAG, PATCH = "sid-1", "tag-1", "7"
PARAMS = {"mode": "humming"}


def request(data: Any = b"hello") -> DataListCls:
    return DataListCls([DataListNode("text", data, status=3, type=0)])


# Signatures: what each parameter is given when all is there. A lambda looks at the value.

HEADS = {
    "function": "def {0}({1}):",
    "method": "def {0}(self, {1}):",
    "cls": "def {0}(cls, {1}):",
    "classmethod": "@classmethod\n    def {0}(cls, {1}):",
    "staticmethod": "@staticmethod\n    def {0}({1}):",
    "selfless": "def {0}({1}):",
}
EXPECTED: dict[str, Any] = {
    "params": PARAMS,
    "sid": SID,
    "usrTag": TAG,
    "userTag": TAG,
    "handle": "h",
    "persId": 7,
    "psrID": 7,
    "psrId": 7,
    "patch_id": "7",
    "resId": "7",
    "presid": "7",
    "errNum": 0,
    "psrIds": ["7"],
    "psrCnt": 1,
    "config": {"a": "1"},
}
CENSUS = {
    "once": [
        "params, reqData",
        "params, reqData, usrTag='', persId=0",
        "params, reqData, persId=0",
        "params, reqData, usrTag='', psrID=0",
        "params, reqData, usrTag=''",
        "usrTag, params, reqData, respData, psrIds, psrCnt",
        "params, reqData, usrTag, psrId=0",
        "params, reqData, *, sid='', persId=0",
        "*args, **kwargs",
        "**kwargs",
        "params, *args",
        "a, b",
        "a, b, c=None, persId=0",
    ],
    "once_async": [
        "params, reqData, usrTag, persId=0",
        "params, reqData, sid, persId=0",
        "params, reqData, sid",
        "params, reqData, usrTag, psrId=0",
    ],
    "create": [
        "params, sid, persId=0",
        "params, sid",
        "params, sid, persId=0, usrTag=''",
        "params, sid, userTag=''",
        "params, sid, userTag='', persId=0",
        "params, errNum, sid",
        "params, errNum, sid, persId=0",
        "usrTag, params, psrIds, psrCnt",
        "*args",
    ],
    "write": ["handle, req, sid", "handle, req", "handle, datas"],
    "read": ["handle, sid", "handle"],
    "destroy": ["handle"],
    "load_res": ["reqData, resId", "reqData, patch_id", "reqData, resId: int"],
    "unload_res": ["resId", "presid", "patch_id"],
    "init": ["config", "anything"],
    "error": ["ret", "code", "errNum"],
    "fini": [""],
}
ATTRIBUTES = {
    "once": "wrapperOnceExec",
    "once_async": "wrapperOnceExecAsync",
    "create": "wrapperCreate",
    "write": "wrapperWrite",
    "read": "wrapperRead",
    "destroy": "wrapperDestroy",
    "load_res": "wrapperLoadRes",
    "unload_res": "wrapperUnloadRes",
    "init": "wrapperInit",
    "error": "wrapperError",
    "fini": "wrapperFini",
}
# What each generation of loaders had to give, beyond parameters and data.
LOADERS: dict[str, dict[str, Any]] = {
    "v2.2 to v3.3": {"sid": SID},
    "release-2.0": {"tag": TAG},
    "release-2.1": {"sid": SID, "tag": TAG, "patch": PATCH},
    "gRPC": {"sid": SID, "tag": TAG},
    "run": {},
}
CASES = [
    pytest.param(method, style, parameters, id=f"{method}-{style}-{parameters}")
    for method, signatures in CENSUS.items()
    for style, parameters in itertools.product(HEADS, signatures)
    # Without self, only a name that is known tells a parameter from self.
    if style != "selfless" or parameters.partition(",")[0] not in ("a", "anything", "**kwargs")
    if style != "selfless" or not parameters.startswith("*")
]
RETURNS = {"once": "Response()", "create": "'h'", "read": "Response()", "error": "'text'"}


def wrapper_with(method: str, style: str, parameters: str) -> tuple[Any, list[dict[str, Any]]]:
    """Make a wrapper whose ``method`` has these parameters and notes what it is given."""
    seen: list[dict[str, Any]] = []
    head = HEADS[style].format(ATTRIBUTES[method], parameters).replace("(self, )", "(self)")
    body = f"seen.append(dict(locals())); return {RETURNS.get(method, '0')}"
    names = {"seen": seen, "Response": Response, "WrapperBase": WrapperBase}
    needed = "" if method == "once" else "def wrapperOnceExec(self, params, reqData): return None"
    if style == "function":
        module = ModuleType("wrapper")
        vars(module).update(names)
        exec(f"{needed.replace('self, ', '')}\n{head}\n    {body}", vars(module))
        return module, seen
    source = f"class Wrapper(WrapperBase):\n    {needed}\n    {head}\n        {body}"
    exec(source, names)
    return names["Wrapper"](), seen  # type: ignore[operator]


def call(bound: Bound, method: str, given: dict[str, Any]) -> Any:
    sid = {"sid": given["sid"]} if "sid" in given else {}
    calls = {
        "once": lambda: bound.once(PARAMS, request(), **given),
        "once_async": lambda: bound.once_async(PARAMS, request(), **given),
        "create": lambda: bound.create(PARAMS, **({"sid": ""} | given)),
        "write": lambda: bound.write("h", request(), **sid),
        "read": lambda: bound.read("h", **sid),
        "destroy": lambda: bound.destroy("h", **sid),
        "load_res": lambda: bound.load_res(request(), given.get("patch", 0)),
        "unload_res": lambda: bound.unload_res(given.get("patch", 0)),
        "init": lambda: bound.init({"a": "1"}),
        "error": lambda: bound.error_text(100),
        "fini": bound.fini,
    }
    return calls[method]()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(("method", "style", "parameters"), CASES)
def test_every_signature_binds_for_every_loader(
    method: str, style: str, parameters: str, loader: str
) -> None:
    wrapper, seen = wrapper_with(method, style, parameters)
    call(Bound(wrapper), method, LOADERS[loader])
    assert len(seen) == 1


@pytest.mark.parametrize(("method", "style", "parameters"), CASES)
def test_every_parameter_gets_what_its_name_says(method: str, style: str, parameters: str) -> None:
    wrapper, (seen) = wrapper_with(method, style, parameters)
    call(Bound(wrapper), method, LOADERS["release-2.1"])
    given = {name: value for name, value in seen[0].items() if name not in ("self", "cls", "seen")}
    # The loaders whose examples say resId gave a number; those of patch_id, a text.
    expected = EXPECTED | {"resId": 7}
    for name, value in given.items():
        if name in expected and (method, name) != ("error", "errNum"):
            assert value == expected[name], name
        elif name in ("reqData", "req", "datas"):
            first = next(iter(value))
            key = first["key"] if isinstance(first, dict) else first.key
            assert key == "text"
    if method == "error":
        assert list(given.values()) == [100]


def test_unknown_parameters_get_what_stands_at_their_place() -> None:
    wrapper, seen = wrapper_with("once", "method", "a, b, c=None, persId=0")
    Bound(wrapper).once(PARAMS, request(), sid=SID, patch=PATCH)
    assert seen[0]["a"] is PARAMS
    assert isinstance(seen[0]["b"], DataListCls)
    assert seen[0]["c"] is None  # has a default, and no name that says what it wants
    assert seen[0]["persId"] == 7


def test_a_method_for_anything_gets_the_newest_form() -> None:
    wrapper, seen = wrapper_with("once", "method", "*args, **kwargs")
    Bound(wrapper).once(PARAMS, request(), sid=SID, tag=TAG, patch=PATCH)
    params, req, tag, patch = seen[0]["args"]
    assert (params, tag, patch) == (PARAMS, TAG, PATCH)
    assert isinstance(req, DataListCls)


def test_a_method_for_any_keyword_gets_the_base_classs_names() -> None:
    wrapper, seen = wrapper_with("once", "method", "**kwargs")
    Bound(wrapper).once(PARAMS, request(), sid=SID)
    assert list(seen[0]["kwargs"]) == ["params", "reqData", "usrTag", "persId"]


def test_a_parameter_that_no_loader_gives_is_refused() -> None:
    wrapper, _ = wrapper_with("destroy", "method", "handle, sid, colour")
    with pytest.raises(PluginError, match=r"wrapperDestroy: .* colour"):
        Bound(wrapper)


def test_an_absent_resource_is_0_and_a_named_one_keeps_its_name() -> None:
    wrapper, seen = wrapper_with("once", "method", "params, reqData, persId=0")
    bound = Bound(wrapper)
    bound.once(PARAMS, request(), sid=SID)
    bound.once(PARAMS, request(), sid=SID, patch="lora-a")
    assert [one["persId"] for one in seen] == [0, "lora-a"]


def test_what_only_the_base_class_has_is_not_there() -> None:
    wrapper, _ = wrapper_with("once", "method", "params, reqData")
    bound = Bound(wrapper)
    assert bound.has("once")
    assert not any(bound.has(name) for name in ("once_async", "create", "read", "load_res"))
    assert bound.init({}) == bound.fini() == bound.destroy("h") == 0
    assert bound.error_text(100)
    with pytest.raises(PluginError, match="the wrapper has no wrapperCreate"):
        bound.create({}, sid=SID)


def test_a_wrapper_without_a_way_to_run_is_refused() -> None:
    class Wrapper(WrapperBase):
        pass

    with pytest.raises(PluginError, match="no method to run"):
        Bound(Wrapper())


def test_a_function_of_the_instance_binds() -> None:
    class Wrapper(WrapperBase):
        def __init__(self) -> None:
            super().__init__()
            self.wrapperOnceExec = lambda params, reqData: Response(error_code=5)  # type: ignore[method-assign]

    bound = Bound(Wrapper())
    assert not bound.has("create")
    assert bound.once({}, request()).error_code == 5


# The three generations.


def module(source: str) -> ModuleType:
    made = ModuleType("wrapper")
    made.__file__ = "wrapper.py"
    with installed():
        exec(textwrap.dedent(source), vars(made))
    return made


def test_functions_get_dicts_and_fill_a_list() -> None:
    found = find(
        module(
            """
            def wrapperInit(config): return 0
            def wrapperOnceExec(usrTag, params, reqData, respData, psrIds, psrCnt):
                item = reqData[0]
                respData.append({"key": "out", "data": item["data"].upper(), "len": item["len"],
                                 "status": 3, "type": 0})
                return 0
            def wrapperError(ret): return "bad"
            def wrapperFini(): return 0
            def wrapperCreate(usrTag, params, psrIds, psrCnt): return usrTag + "-h"
            def wrapperWrite(handle, datas): return len(datas)
            def wrapperRead(handle): return None
            def wrapperDestroy(handle): return 0
            """
        )
    )
    assert found.generation == "G1"
    bound = Bound(construct(found.target))
    assert bound.init({}) == 0
    (piece,) = pieces_of(bound.once({}, request(), tag=TAG), warned=set())
    assert piece == Piece("out", b"HELLO", 0, 3, {})
    assert bound.create({}, sid=SID, tag=TAG).handle == "tag-1-h"
    assert bound.write("h", request()) == 1
    assert bound.read("h") is None
    assert bound.message(4) == "bad;code=4"


def test_functions_with_two_parameters_get_todays_objects() -> None:
    found = find(module("def wrapperOnceExec(params, reqData): return reqData.get('text').status"))
    assert Bound(found.target).once({}, request()).error_code == 3


def test_the_third_generation_gets_and_gives_lists() -> None:
    found = find(
        module(
            """
            from python_wrapper import WrapperBase, WrapperData, DataStatus
            class Anything(WrapperBase):
                def init(self, config): return 0
                def exec(self, usr_tag, params, data_list, psr_ids):
                    text = data_list[0].data.decode()
                    return [WrapperData("out", f"{text} {psr_ids}", 0, DataStatus.ONCE)], 0
                def error(self, code): return f"code {code}"
                def create(self, usr_tag, params, psr_ids): return usr_tag, 0
                def write(self, handle, data_list): return 9 if data_list else 0
                def read(self, handle): return [], 3
            """
        )
    )
    assert found.generation == "G3"
    bound = Bound(construct(found.target))
    view = memoryview(b"hello")
    (piece,) = pieces_of(bound.once({}, request(view), sid=SID, patch="7"), warned=set())
    assert piece.data == b"hello ['7']"
    assert bound.create({}, sid=SID).handle == SID
    assert bound.write(SID, request()) == 9
    assert bound.read(SID).error_code == 3  # type: ignore[union-attr]
    assert not bound.has("load_res")
    assert bound.error_text(2) == "code 2"


def test_helpers_of_the_third_generation_reach_the_session() -> None:
    with installed():
        base = importlib.import_module("python_wrapper").WrapperBase()
    got: list[Any] = []
    counts: list[tuple[str, int]] = []
    route = ROUTES.open(
        lambda response: bool(got.append(response)) or True,
        TAG,
        metric=lambda key, count: counts.append((key, count)),
        trace=lambda key, value: counts.append((key, len(value))),
    )
    try:
        assert base.async_callback(TAG, [WrapperData("a", b"x")], 0) == 0
        assert base.async_callback(TAG, 5) == 0
        assert base.meter_custom(TAG, "tokens", 3) == base.trace_log(TAG, "k", "ab") == 0
        assert base.eventlog("x") == base.metrics_log("x") == base.update_lb_extra() == 0
    finally:
        route.close()
    assert [(len(r.list), r.error_code) for r in got] == [(1, 0), (0, 5)]
    assert counts == [("tokens", 3), ("k", 2)]
    assert base.async_callback(TAG, 5) == -1


def test_the_only_class_of_a_wrapper_is_found_by_any_name() -> None:
    source = """
        from aiges.sdk import WrapperBase
        class Shared(WrapperBase):
            def wrapperOnceExec(self, params, reqData): return 4
        class Service(Shared):
            serviceId = "mine"
        """
    found = find(module(source))
    assert (found.generation, found.target.__name__) == ("G2", "Service")


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("x = 1", "none"),
        (
            "from aiges.sdk import WrapperBase\n"
            "class A(WrapperBase): pass\nclass B(WrapperBase): pass",
            "A and B",
        ),
    ],
)
def test_a_module_without_one_wrapper_is_refused(source: str, count: str) -> None:
    with pytest.raises(PluginError, match=f"found: {count}"):
        find(module(source))


@pytest.mark.parametrize(
    "init",
    ["self, *args, **kwargs", "self", "self, legacy, is_aipaas, keep_schema_default_value", ""],
)
def test_every_constructor_of_the_census_works(init: str) -> None:
    names: dict[str, Any] = {"WrapperBase": WrapperBase}
    forward = "*args, **kwargs" if "args" in init else ""
    body = f"def __init__({init}): super().__init__({forward})" if init else "pass"
    exec(f"class Wrapper(WrapperBase):\n    {body}", names)
    made = construct(names["Wrapper"])
    assert (made.legacy, made.is_aipaas, made.keep_schema_default_value) == (True, True, True)
    assert made.session.get_idle_handle() is None
    assert (made.respData, made.inputs_test_values, made.params_test_values) == ([], {}, {})


def test_a_constructor_with_arguments_of_its_own_is_refused() -> None:
    class Wrapper(WrapperBase):
        def __init__(self, colour: str) -> None:
            super().__init__()

    with pytest.raises(PluginError, match="colour"):
        construct(Wrapper)


# Return values.


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, 0), (0, 0), (7, 7), (True, 1), (False, 0), (Response(error_code=3), 3)],
)
def test_codes_are_taken_from_what_methods_return(value: Any, code: int) -> None:
    assert code_of(value, "wrapperInit") == code


def test_none_is_0_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Wrapper(WrapperBase):
        def wrapperInit(self, config: Any) -> None:  # type: ignore[override]
            pass

        def wrapperOnceExec(self, params: Any, reqData: Any) -> None:  # type: ignore[override]
            pass

    bound = Bound(Wrapper())
    assert bound.init({}) == bound.init({}) == 0
    assert caplog.messages.count("wrapperInit returned None: taken as 0") == 1
    with pytest.raises(BadAnswer, match="wrapperOnceExec returned None"):
        bound.once({}, request())


@pytest.mark.parametrize("value", ["0", 1.5, b"", object()])
def test_what_is_no_code_is_a_bad_answer(value: Any) -> None:
    with pytest.raises(BadAnswer, match="wrapperWrite returned"):
        code_of(value, "wrapperWrite")


@pytest.mark.parametrize(
    ("value", "code"), [(5, 5), (True, 1), (0, 0), (([], 6), 6), ((6, []), 6), ((None, 2), 2)]
)
def test_a_number_from_exec_is_an_error_code(value: Any, code: int) -> None:
    assert response_of(value, "wrapperOnceExec").error_code == code


@pytest.mark.parametrize("value", [None, "text", {"a": 1}, b"x", [1], [{"data": b""}], ("a", 0)])
def test_what_is_no_response_is_a_bad_answer(value: Any) -> None:
    with pytest.raises(BadAnswer, match="wrapperOnceExec"):
        response_of(value, "wrapperOnceExec")


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        ("text", [("out", b"text")]),
        (b"raw", [("out", b"raw")]),
        ({"a": "x", "b": {"n": 1}}, [("a", b"x"), ("b", b'{"n": 1}')]),
    ],
)
def test_plain_values_are_responses_where_that_is_asked_for(value: Any, pieces: Any) -> None:
    found = pieces_of(response_of(value, "wrapperOnceExec", sugar="out"), warned=set())
    assert [(piece.key, piece.data) for piece in found] == pieces


def test_a_foreign_response_is_understood() -> None:
    item = SimpleNamespace(key=b"k", data="text", len=4, type=0, status=3)
    foreign = SimpleNamespace(list=[item], error_code=0)
    (piece,) = pieces_of(response_of(foreign, "wrapperOnceExec"), warned=set())
    assert piece == Piece("k", b"text", 0, 3, {})


@pytest.mark.parametrize(
    ("value", "handle", "code"),
    [
        (SessionCreateResponse("h", 0), "h", 0),
        (SessionCreateResponse(), SID, 0),
        (SessionCreateResponse("", -1), "", -1),
        ("h", "h", 0),
        (("h", 0), "h", 0),
        ((0, "h"), "h", 0),
        (-1, "", -1),
        (0, SID, 0),
    ],
)
def test_every_answer_to_create_gives_a_handle_or_a_code(
    value: Any, handle: str, code: int
) -> None:
    created = created_of(value, "wrapperCreate", sid=SID)
    assert (created.handle, created.error_code) == (handle, code)


def test_no_answer_to_create_is_a_bad_answer() -> None:
    with pytest.raises(BadAnswer, match="wrapperCreate returned None"):
        created_of(None, "wrapperCreate", sid=SID)


def test_the_text_of_a_code_never_fails() -> None:
    class Wrapper(WrapperBase):
        def wrapperOnceExec(self, params: Any, reqData: Any) -> Any:  # type: ignore[override]
            return 1

        def wrapperError(self, ret: int) -> Any:
            return {1: None, 2: 17, 3: "three"}[ret]

    bound = Bound(Wrapper())
    assert [bound.error_text(code) for code in (1, 2, 3, 4)] == ["", "17", "three", ""]
    assert bound.message(3) == "three;code=3"
    assert ENGINE_CODES["once"] == 10909


# The objects.


def test_data_in_a_view_becomes_bytes_on_first_use() -> None:
    view = memoryview(bytearray(b"hello"))
    node = DataListNode("a", view)
    assert node.get_data() is view
    assert node.len == 5
    data = node.data
    assert isinstance(data, bytes)
    assert node.data is data  # copied once
    assert node.get_data() is view


def test_a_node_is_what_a_driver_sets() -> None:
    node = DataListNode()
    assert (node.status, node.type, node.data, node.desc) == (3, 0, b"", {})
    node.key, node.data = "k", b"abc"
    assert (node.len, node.get_data()) == (3, b"abc")
    node.len, node.status, node.type = 9, 0, 2
    assert (node.len, node.status, node.type) == (9, 0, 2)


def test_a_list_of_nodes_is_there_from_the_start() -> None:
    listed = DataListCls()
    assert listed.list == []
    assert listed  # as an object of the SDK always is
    node = DataListNode(b"k", b"1")
    listed.list.append(node)
    listed.list.append(DataListNode("k", b"2"))
    assert listed.get("k") is listed.get(b"k") is listed.list[0] is node
    assert listed.get("other") is None
    assert listed.get("other", 5) == 5
    assert len(listed) == len(list(listed)) == 2


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (ResponseData(), ("", b"", 0, 0, 3)),
        (ResponseData("k", 5, 2, 1), ("k", b"", 5, 1, 2)),
        (ResponseData("k", b"abc", 3, 1, 0), ("k", b"abc", 3, 1, 0)),
        (ResponseData(key="k", status=1, len=2, data=b"ab"), ("k", b"ab", 2, 0, 1)),
        (ResponseData("k", data="é"), ("k", "é".encode(), 2, 0, 3)),
    ],
)
def test_every_way_to_make_a_piece_works(made: ResponseData, expected: Any) -> None:
    assert (made.key, made.data, made.len, made.type, made.status) == expected


@pytest.mark.parametrize(
    "value", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc"], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("how", ["attribute", "setData", "constructor"])
def test_every_way_to_give_data_works(value: Any, how: str) -> None:
    piece = ResponseData()
    if how == "attribute":
        piece.data = value
    elif how == "setData":
        piece.setData(value)
    else:
        piece = ResponseData("k", value)
    assert bytes(piece.data) == b"abc"
    assert piece.len == 3


def test_a_buffer_that_goes_on_changing_is_copied() -> None:
    buffer = bytearray(b"abc")
    piece = ResponseData("k", buffer)
    buffer[:] = b"xyz"
    assert piece.data == b"abc"


def test_data_that_is_none_is_refused_where_it_is_set() -> None:
    with pytest.raises(TypeError, match="data must be bytes, not NoneType"):
        ResponseData().setData(None)


def test_a_wrong_len_is_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    piece = ResponseData("k", b"abcdef")
    piece.len = 1
    warned: set[str] = set()
    for _ in range(2):
        assert pieces_of(Response([piece]), warned=warned)[0].data == b"abcdef"
    assert len(caplog.messages) == 1
    (cut,) = pieces_of(Response([piece]), warned=warned, c_len=True)
    assert bytes(cut.data) == b"a"
    piece.setData(b"xy")
    assert piece.len == 2


def test_any_type_of_data_can_be_set(caplog: pytest.LogCaptureFixture) -> None:
    piece = ResponseData()
    for kind in (0, 1, 2, 3):
        piece.setDataType(kind)
    assert not caplog.messages
    piece.setDataType(4)
    assert piece.type == 4
    assert len(caplog.messages) == 1


def test_an_untouched_response_can_be_an_error() -> None:
    response = Response()
    assert response.list == []
    assert response.response_err(100) is response
    assert response.error_code == 100
    response.list.append(ResponseData("k", b"x"))
    assert Response([ResponseData()], error_code=2).error_code == 2
    assert WrapperBase().response_err(7).error_code == 7


def test_a_blank_item_is_none() -> None:
    assert pieces_of(Response([ResponseData(), ResponseData("k", b"")]), warned=set()) == [
        Piece("k", b"", 0, 3, {})
    ]


def test_objects_are_json() -> None:
    piece = ResponseData("k", b"\xff\x00")
    document = json.loads(Response([ResponseData("t", "é"), piece], 3).toJSON())
    assert document["error_code"] == 3
    assert [item["data"] for item in document["list"]] == ["é", "/wA="]
    assert json.loads(piece.toJSON())["len"] == 2
    assert json.loads(SessionCreateResponse("h", 1).toJSON()) == {"handle": "h", "error_code": 1}


def test_statuses_have_their_numbers_under_every_name() -> None:
    assert [int(status) for status in DataStatus] == [0, 1, 2, 3]
    assert DataStatus.end is DataStatus.END is DataStatus.DataEnd


# Callback.


@pytest.fixture
def routes() -> Routes:
    return Routes()


@pytest.mark.parametrize("tags", [(TAG,), (SID,), ("h",), ("h", SID), (TAG.encode(),), ("x", SID)])
def test_a_result_finds_its_session_by_any_name(routes: Routes, tags: Any) -> None:
    got: list[Any] = []
    route = routes.open(lambda response: not got.append(response), SID, TAG, nameless=True)
    route.named("h")
    assert routes.callback("result", *tags) == 0
    assert got == ["result"]
    route.close()
    assert routes.callback("late", *tags) == -1
    assert len(routes) == 0


def test_a_result_for_nobody_is_told(routes: Routes) -> None:
    assert routes.callback("result", "x") == routes.callback("result") == -1


def test_a_result_reaches_nobody_by_a_name_that_two_share(routes: Routes) -> None:
    first, second = [], []  # type: ignore[var-annotated]
    one = routes.open(lambda r: not first.append(r), "sid-1", "shared")
    routes.open(lambda r: not second.append(r), "sid-2", "shared")
    assert routes.callback("a", "shared") == -1
    assert routes.callback("b", "shared", "sid-1") == 0
    one.close()
    assert routes.callback("c", "shared") == 0
    assert (first, second) == (["b"], ["c"])


def test_results_that_come_before_the_handle_is_known_are_kept_in_order(routes: Routes) -> None:
    got: list[Any] = []
    route = routes.open(lambda response: not got.append(response), SID, nameless=True)
    assert [routes.callback(number, "fresh") for number in range(3)] == [0, 0, 0]
    assert got == []
    route.named("fresh")
    assert routes.callback(3, "fresh") == 0
    assert got == [0, 1, 2, 3]
    assert routes.callback(9, "never-heard-of") == -1


def test_a_delivery_that_fails_does_not_reach_the_wrapper(
    routes: Routes, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(response: Any) -> bool:
        raise RuntimeError("no loop")

    routes.open(fail, SID)
    routes.open(lambda response: False, "gone")
    assert routes.callback("r", SID) == -1
    assert routes.callback("r", "gone") == -1
    assert "could not be delivered" in caplog.text


def test_figures_go_to_their_session_and_never_fail(routes: Routes) -> None:
    got: list[Any] = []
    routes.open(
        lambda response: True,
        SID,
        metric=lambda key, count: got.append((key, count)),
        trace=lambda key, value: got.append((key, value)),
    )
    assert routes.metric(SID, "tokens", 5) == routes.metric(SID, "tokens", "no number") == 0
    assert routes.trace(SID, b"k", 1) == routes.metric("x", "tokens", 5) == 0
    assert got == [("tokens", 5), ("k", "1")]


def test_threads_can_call_back_while_sessions_come_and_go(routes: Routes) -> None:
    names = [f"s{number}" for number in range(8)]
    got: dict[str, list[str]] = {name: [] for name in names}

    def work(name: str) -> None:
        for _ in range(200):
            route = routes.open(lambda r: not got[name].append(r), name, nameless=True)
            for other in names:
                routes.callback(other, other)
            route.named(f"{name}-h")
            routes.callback(name, f"{name}-h")
            route.close()

    threads = [threading.Thread(target=work, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(routes) == 0
    assert all(set(results) == {name} for name, results in got.items())


def test_the_sdks_functions_use_the_process_wide_routes() -> None:
    with installed():
        embed = importlib.import_module("aiges_embed")
        callback3 = importlib.import_module("aiges.callback").callback
    got: list[Any] = []
    route = ROUTES.open(lambda response: not got.append(response), SID)
    try:
        assert embed.callback("one", SID) == dto.callback("two", SID) == 0
        assert callback3("three", "handle", SID) == 0
        assert embed.callback_metric(SID, "k", 1) == embed.callback_trace(SID, "k", "v") == 0
    finally:
        route.close()
    assert got == ["one", "two", "three"]
    assert embed.callback("late", SID) == -1


def test_a_queue_of_results_exists_in_a_local_run_alone() -> None:
    assert dto.init_rq() is None
    results: queue.Queue[Any] = queue.Queue()
    ROUTES.keep_locally(results)
    try:
        assert dto.init_rq() is results
        assert dto.callback("r", "any") == 0
    finally:
        ROUTES.keep_locally(None)
    assert results.get_nowait() == "r"


# Imports.

IMPORTS = {
    "aiges.sdk": "WrapperBase StringBodyField StringParamField ImageBodyField JsonBodyField "
    "AudioBodyField SessionManager IntegerParamField NumberParamField BooleanParamField "
    "VideoBodyField",
    "aiges.dto": "Response DataListCls ResponseData DataListNode SessionCreateResponse callback "
    "init_rq Once DataText",
    "aiges_embed": "Response DataListCls ResponseData DataListNode SessionCreateResponse callback "
    "init_rq callback_metric callback_trace",
    "aiges.utils.log": "log getFileLogger getLogger",
    "aiges.core.types": "Types STRING AUDIO IMAGE VIDEO DataText DataEnd Once *",
    "aiges.types": "DataBegin DataContinue DataOnce *",
    "aiges.stream": "StreamHandleThread SessionManager",
    "aiges.callback": "callback",
    "aiges.concurrent.fixpool": "FixedPool",
    "aiges.worker": "Worker InferClass",
    "aiges.errors": "OK INIT_ERROR USER_INIT_ERROR USER_EXEC_ERROR",
    "aiges": "EXIT_SIG",
    "python_wrapper": "WrapperBase WrapperData DataStatus",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_every_import_of_wrappers_succeeds(name: str) -> None:
    with installed():
        for wanted in IMPORTS[name].split():
            exec(f"from {name} import {wanted}", {})


def test_all_dialects_are_the_same_objects() -> None:
    with installed():
        embed, own = importlib.import_module("aiges_embed"), importlib.import_module("aiges.dto")
        assert embed.Response is own.Response is Response
        assert importlib.import_module("aiges.stream") is sys.modules["aiges.stream"]
        assert sys.modules["aiges.dto"] is dto
        assert dto.__spec__ is not None
        assert dto.__spec__.name == dto.__name__


def test_the_names_are_gone_afterwards() -> None:
    with installed():
        importlib.import_module("aiges.utils.log")
    assert not [name for name in sys.modules if name.partition(".")[0] in ("aiges", "aiges_embed")]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("aiges_embed")


def test_a_module_that_the_shim_has_not_does_not_exist() -> None:
    with installed(), pytest.raises(ModuleNotFoundError, match=r"aiges\.nonsense"):
        importlib.import_module("aiges.nonsense")


@pytest.fixture
def real_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install something under the SDK's name."""
    package = tmp_path / "aiges"
    package.mkdir()
    (package / "__init__.py").write_text("real = True\n")
    (package / "dto.py").write_text("real = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("aiges")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "aiges"]:
        del sys.modules[name]


@pytest.mark.usefixtures("real_sdk")
def test_the_shim_comes_before_an_installed_sdk() -> None:
    before = sys.modules["aiges"]
    with installed():
        assert importlib.import_module("aiges.dto") is dto
    assert sys.modules["aiges"] is before


@pytest.mark.usefixtures("real_sdk")
def test_an_installed_sdk_can_be_preferred() -> None:
    with installed(prefer_real=True):
        assert importlib.import_module("aiges.dto").real
        with pytest.raises(ModuleNotFoundError):  # its objects would be others
            importlib.import_module("aiges_embed")
        assert importlib.import_module("python_wrapper").WrapperData is WrapperData


def test_preferring_an_sdk_that_is_not_installed_leaves_the_shim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aiges").mkdir()  # a folder of data is no SDK
    monkeypatch.syspath_prepend(tmp_path)
    with installed(prefer_real=True):
        assert importlib.import_module("aiges.dto") is dto


def test_imports_are_quiet_and_light() -> None:
    code = (
        "import logging, sys\n"
        "from atomserve.compat.aiges.finder import installed\n"
        "with installed():\n"
        "    import aiges.sdk, aiges.stream, aiges.utils.log, aiges_embed, python_wrapper\n"
        "assert not logging.getLogger().handlers\n"
        "assert logging.getLogger().level == logging.WARNING\n"
        "assert not {'numpy', 'starlette', 'hypercorn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


# What else the SDK has.


def test_a_file_logger_writes_beside_the_wrapper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logger = shim_log.getFileLogger("name", level="debug", anything=1)
    assert shim_log.getFileLogger() is logger
    assert not (tmp_path / "log").exists()  # nothing before the first line
    try:
        logger.info("hello %s", "file")
        logger.info("again")
        written = [path.read_text() for path in (tmp_path / "log").iterdir()]
    finally:
        close(logger)
    assert written[0].count("\n") == 2
    assert "hello file" in written[0]
    assert shim_log.getLogger().name == shim_log.log.name == "aiges"
    assert shim_log.getLogger("mine").name == "mine"


def test_a_file_logger_that_cannot_write_does_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log").write_text("a file where the folder should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    logger = shim_log.getFileLogger()
    try:
        logger.info("hello")
    finally:
        close(logger)


def close(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def test_a_fixed_pool_counts_and_never_reuses_a_key() -> None:
    stopped = []
    worker = SimpleNamespace(stop=lambda: stopped.append(1))
    pool = FixedPool()
    pool.set_capacity(2)
    added = [pool.add(worker) for _ in range(3)]
    assert added == [(True, "worker-0"), (True, "worker-1"), (False, "")]
    assert pool.remove("worker-0")
    assert pool.remove("worker-0")
    assert pool.add(worker) == (True, "worker-2")
    assert pool.get("worker-2") is worker
    pool.clear_all()
    assert (pool.allocated, len(stopped)) == (0, 3)


def test_a_worker_runs_until_its_model_is_done() -> None:
    class Infer(InferClass):
        def predict(self, *args: Any, **kwargs: Any) -> tuple[Any, bool]:
            if kwargs["req"] == "bad":
                raise ValueError
            return self.handle, kwargs["req"] == "end"

    def started() -> Worker:
        worker = Worker()
        worker.register_infer_class(Infer())
        worker.register_infer_func(print)
        worker.register_callback(lambda response, handle: told.append((response, handle)))
        worker.setHandle("worker-0")
        worker.start()
        return worker

    told: list[Any] = []
    done, failed, stopped = started(), started(), started()
    done.in_q.put("more")
    done.in_q.put("end")
    failed.in_q.put("bad")
    stopped.stop()
    for worker in (done, failed, stopped):
        worker.join()
    assert [(response.error_code, handle) for response, handle in told] == [(-1, "worker-0")]
