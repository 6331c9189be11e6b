"""Wrappers of each generation, as text, that fail and answer as their clients ask."""

from __future__ import annotations

from pathlib import Path

COMMON = """
import json, threading, time
try:
    from aiges_embed import ResponseData, Response, DataListCls, SessionCreateResponse, callback
except:
    from aiges.dto import ResponseData, Response, DataListCls, SessionCreateResponse, callback
from aiges.dto import callback_metric, callback_trace
from aiges.sdk import *
from aiges.core.types import *


def piece(data, status=Once):
    response, item = Response(), ResponseData()
    item.key, item.status, item.type = "result", status, DataText
    item.setData(data)
    response.list = [item]
    return response


class UserRequest(object):
    params1 = StringParamField(key="how", enums=["upper", "lower"], value="upper")
    params2 = NumberParamField(key="speed", minimum=0, maximum=10, value=1)
    input1 = StringBodyField(key="text", value=b"hello")


class UserResponse(object):
    accept1 = StringBodyField(key="result", encoding="utf8", format="plain")

"""

MIDDLE = (
    COMMON
    + """
class Wrapper(WrapperBase):
    serviceId = "middle"
    version = "v2"
    requestCls = UserRequest()
    responseCls = UserResponse()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()
        self.tally = {"created": 0, "destroyed": 0, "twice": 0}
        self.open = set()
        self.gate = threading.Event()

    def wrapperInit(self, config):
        self.told = dict(config)
        if config.get("stay"):
            for _ in range(32):
                threading.Thread(target=threading.Event().wait).start()
        return 0

    def wrapperFini(cls):
        print("finished", flush=True)
        return 0

    def wrapperError(cls, ret):
        return {7: "user error", 3: "no session", 9: "no write", 5: "no result"}.get(ret, "")

    def wrapperOnceExec(self, params, reqData, usrTag="", persId=0):
        params["wrapper"] = self
        text = reqData.get("text").data
        if text == b"code":
            return Response().response_err(7)
        if text == b"raise":
            raise RuntimeError("a secret")
        if text == b"empty":
            return Response()
        if text == b"none":
            return None
        if text == b"sleep":
            time.sleep(0.7)
        if text == b"hold":
            print("held", flush=True)
            self.gate.wait(10)
        if text == b"tally":
            with self.lock:
                found = dict(self.tally, open=len(self.open))
            return piece(json.dumps(found))
        if text == b"params":
            params.pop("wrapper")
            types = sorted({type(value).__name__ for value in params.values()})
            return piece(json.dumps({**params, "types": types, "tag": usrTag == params["sid"]}))
        if text == b"config":
            return piece(json.dumps(self.told))
        if text == b"count":
            callback_metric(usrTag, "tokens", 3)
            callback_trace(usrTag, "stage", "counted")
        return piece(text.upper())

    def wrapperCreate(self, params, sid, persId=0):
        response = SessionCreateResponse()
        if params.get("how") == "refuse":
            response.error_code = 3
            return response
        if params.get("how") == "raise":
            raise RuntimeError("a secret")
        response.handle = "handle-" + sid
        with self.lock:
            self.tally["created"] += 1
            self.open.add(response.handle)
        return response

    def wrapperWrite(self, handle, req, sid):
        node = req.list[0]
        if node.data == b"raise":
            raise RuntimeError("a secret")
        if node.data == b"code":
            return 9
        if node.data == b"silent":
            return 0
        if node.data.isdigit():
            for number in range(int(node.data)):
                callback(piece(str(number), 1), sid)
            callback(piece(b"", 2), sid)
            return 0
        if node.data.startswith((b"words", b"no number", b"blank")):
            result = piece(node.data, None if node.data == b"no number" else "end")
            if node.data == b"words as text":
                result.list[0].type, result.list[0].status = "text", "2"
            if node.data == b"blank end":
                result.list[0].key, result.list[0].data, result.list[0].status = "", b"", 2
            callback(result, sid)
            return 0
        if node.data == b"error":
            callback(Response().response_err(5), sid)
            return 0
        result = piece(node.data.upper(), node.status)
        if node.data.startswith(b"thread"):
            threading.Thread(target=callback, args=(result, handle)).start()
        else:
            callback(result, sid)
        return 0

    def wrapperDestroy(self, handle):
        with self.lock:
            self.tally["destroyed"] += 1
            if handle not in self.open:
                self.tally["twice"] += 1
            self.open.discard(handle)
        print("destroyed", handle, flush=True)
        return 0
"""
)

OLD = """
buffers = {}


def wrapperInit(config):
    return 0


def wrapperFini():
    return 0


def wrapperError(code):
    return "old error"


def wrapperOnceExec(usrTag, params, reqData, respData, psrIds, psrCnt):
    if reqData[0]["data"] == b"code":
        return 7
    data = reqData[0]["data"].upper()
    respData.append({"key": "result", "data": data, "len": len(data), "status": 3, "type": 0})
    return 0


def wrapperCreate(usrTag, params, psrIds, psrCnt):
    buffers[usrTag] = []
    return usrTag


def wrapperWrite(handle, datas):
    buffers[handle] += [(item["data"], item["status"]) for item in datas]
    return 0


def wrapperRead(handle):
    if not buffers[handle]:
        return []
    data, status = buffers[handle].pop(0)
    data = data.upper()
    return [{"key": "result", "data": data, "len": len(data), "status": status, "type": 0}]


def wrapperDestroy(handle):
    del buffers[handle]
    print("destroyed", handle, flush=True)
    return 0
"""

NEW = """
import threading
from python_wrapper import DataStatus, WrapperBase, WrapperData


class Third(WrapperBase):
    serviceId = "new"

    def init(self, config):
        return 0

    def fini(self):
        return 0

    def error(self, code):
        return "new error"

    def exec(self, usr_tag, params, data_list, psr_ids):
        if data_list[0].data == b"code":
            return [], 7
        return [WrapperData("result", data_list[0].data.upper(), 0, 3, {})], 0

    def create(self, usr_tag, params, psr_ids):
        return usr_tag, 0

    def write(self, handle, data_list):
        item = data_list[0]
        result = [WrapperData("result", item.data.upper(), 0, item.status, {})]
        threading.Thread(target=self.async_callback, args=(handle, result, 0)).start()
        return 0

    def destroy(self, handle):
        print("destroyed", handle, flush=True)
        return 0
"""

LATER = (
    COMMON
    + """
class Wrapper(WrapperBase):
    serviceId = "later"

    def wrapperInit(self, config):
        return 0

    def wrapperFini(cls):
        return 0

    def wrapperError(cls, ret):
        return "later error"

    def wrapperOnceExecAsync(self, params, reqData, sid, persId=0):
        text = reqData.get("text").data
        if text == b"code":
            return 7
        if text == b"never":
            return 0
        if text.startswith(b"words"):
            threading.Thread(target=self.speak, args=(text.split(), sid)).start()
            return 0
        result = Response().response_err(5) if text == b"error" else piece(text.upper())
        threading.Thread(target=callback, args=(result, sid)).start()
        return 0

    def speak(self, words, sid):
        for number, word in enumerate(words):
            status = 2 if number == len(words) - 1 else min(number, 1)
            callback(piece(word.upper() + b" ", status), sid)
"""
)

VIEWER = (
    COMMON
    + """
class PictureRequest(object):
    input1 = ImageBodyField(key="picture", path="")


class Wrapper(WrapperBase):
    serviceId = "viewer"
    requestCls = PictureRequest()
    responseCls = UserResponse()

    def wrapperInit(self, config):
        return 0

    def wrapperOnceExec(self, params, reqData):
        node = reqData.get("picture")
        view = node.get_data()
        assert node.data == view.tobytes()
        return piece(f"{type(view).__name__} {node.len} {type(node.data).__name__}")
"""
)

TEXTS = {"middle": MIDDLE, "old": OLD, "new": NEW, "later": LATER, "viewer": VIEWER}


def write(folder: Path, name: str, *, text: str = "", toml: str = "") -> Path:
    """Write the wrapper called ``name`` into a folder of its own, and return that."""
    own = folder / name
    own.mkdir()
    (own / "wrapper.py").write_text(text or TEXTS[name])
    if toml:
        (own / "aiges.toml").write_text(toml)
    return own
