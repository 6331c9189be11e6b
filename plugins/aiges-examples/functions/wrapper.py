"""Reverse a text, in functions: the first generation of wrappers."""

NO_TEXT = 1001
ONCE = 3


def wrapperInit(config):
    """Get ready."""
    return 0


def wrapperOnceExec(usrTag, params, reqData, respData, psrIds, psrCnt):  # noqa: PLR0917
    """Put the result into respData, and return a code."""
    texts = [item["data"] for item in reqData if item["key"] == "text"]
    if not texts:
        return NO_TEXT
    data = texts[0].decode()[::-1].encode()
    respData.append({"key": "result", "data": data, "len": len(data), "status": ONCE, "type": 0})
    return 0


def wrapperError(ret):
    """Say what a code means."""
    return "there is no text" if ret == NO_TEXT else ""


def wrapperFini():
    """Give nothing back: nothing was taken."""
    return 0
