"""Count words, and call back with the result."""

import json
import queue
import threading

from aiges.core.types import DataText, Once
from aiges.dto import DataListCls, Response, ResponseData, callback
from aiges.sdk import JsonBodyField, StringBodyField, WrapperBase

THREADS = 2
NOTHING_TO_COUNT = 1001


class UserRequest:
    """A text."""

    input1 = StringBodyField(key="text", value=b"to be or not to be")


class UserResponse:
    """How often each word stands there."""

    accept1 = JsonBodyField(key="words")


class Wrapper(WrapperBase):
    """Accepts requests at once, and counts in threads of its own."""

    serviceId = "wordcount"
    version = "v1"
    requestCls = UserRequest()
    responseCls = UserResponse()

    def wrapperInit(self, config: dict) -> int:
        """Start the threads."""
        self.jobs: queue.Queue = queue.Queue()
        self.threads = [threading.Thread(target=self.work) for _ in range(THREADS)]
        for thread in self.threads:
            thread.start()
        return 0

    def wrapperOnceExecAsync(
        self, params: dict, reqData: DataListCls, sid: str, persId: int = 0
    ) -> int:
        """Accept a request; 0 says that its result will come by callback."""
        text = reqData.get("text")
        if text is None:
            return NOTHING_TO_COUNT
        self.jobs.put((sid, text.data.decode()))
        return 0

    def work(self) -> None:
        """Count one text after the other."""
        while (job := self.jobs.get()) is not None:
            sid, text = job
            words = text.split()
            found = {word: words.count(word) for word in sorted(set(words))}
            item = ResponseData()
            item.key = "words"
            item.type = DataText
            item.status = Once
            item.setData(json.dumps(found).encode())
            response = Response()
            response.list = [item]
            callback(response, sid)

    def wrapperError(self, ret: int) -> str:
        """Say what a code means."""
        return "there is no text" if ret == NOTHING_TO_COUNT else ""

    def wrapperFini(self) -> int:
        """Stop the threads."""
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join()
        return 0


if __name__ == "__main__":
    wrapper = Wrapper()
    wrapper.schema()
    wrapper.run()
