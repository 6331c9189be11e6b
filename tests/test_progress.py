"""What `atomserve run` prints of the supervisor's events."""

import pytest

from atomserve.cli.progress import Progress
from atomserve.settings import Settings
from atomserve.supervisor.events import Bound, Drained, Failed, ModelChanged, NotReady, Ready

URL = "http://127.0.0.1:8000"


def test_sessions_are_listed_as_web_sockets_and_nothing_is_listed_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(Settings(docs=False))
    progress(Bound((URL,)))
    progress(ModelChanged(None, "ask", "ready", ""))
    progress(ModelChanged(None, "talk", "ready", "", "session"))
    progress(ModelChanged(None, "moved", "ready", "", "call", ("/v1/private/moved",)))
    capsys.readouterr()
    progress(Ready())
    assert capsys.readouterr().out.splitlines() == [
        "Ready. Each answers POST requests, or a WebSocket (WS):",
        f"  ask    {URL}/v1/models/ask/predict",
        f"  moved  {URL}/v1/models/moved/predict",
        f"  moved  {URL}/v1/private/moved",
        f"  talk   WS {URL.replace('http', 'ws')}/v1/models/talk/session",
    ]
    progress(NotReady())
    progress(Ready())
    assert capsys.readouterr().out.splitlines() == ["Not ready.", "Ready again."]


def test_after_a_failure_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(Settings())
    progress(Failed("wrong", 2))
    progress(Drained(0))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "atomserve: error: wrong\n")
