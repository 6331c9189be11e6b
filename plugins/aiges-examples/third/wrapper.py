"""Write a text in capitals, as a wrapper of the third generation: once and in sessions."""

from python_wrapper import DataStatus, WrapperBase, WrapperData

NO_TEXT, NO_SESSION = 1001, 1002
TEXTS = {NO_TEXT: "there is no text", NO_SESSION: "there is no such session"}


class Capitals(WrapperBase):
    """Answers with lists of data and a code."""

    serviceId = "capitals"

    def init(self, config: dict) -> int:
        """Get ready."""
        self.sessions = {}
        return 0

    def version(self) -> str:
        """Return the wrapper's version."""
        return "v3"

    def exec(self, usr_tag, params, data_list, psr_ids):
        """Answer one request."""
        texts = [item.data for item in data_list if item.key == "text"]
        if not texts:
            return [], NO_TEXT
        return [WrapperData("result", texts[0].upper(), 0, DataStatus.ONCE)], 0

    def create(self, usr_tag, params, psr_ids):
        """Begin a session."""
        self.sessions[usr_tag] = []
        return usr_tag, 0

    def write(self, handle, data_list):
        """Take a piece of a session."""
        if handle not in self.sessions:
            return NO_SESSION
        self.sessions[handle] += data_list
        return 0

    def read(self, handle):
        """Return what can be answered by now."""
        if handle not in self.sessions:
            return [], NO_SESSION
        pieces, self.sessions[handle] = self.sessions[handle], []
        return [WrapperData("result", each.data.upper(), 0, each.status) for each in pieces], 0

    def destroy(self, handle) -> int:
        """End a session."""
        self.sessions.pop(handle, None)
        return 0

    def error(self, code: int) -> str:
        """Say what a code means."""
        return TEXTS.get(code, "")

    def fini(self) -> int:
        """End all sessions."""
        self.sessions.clear()
        return 0
