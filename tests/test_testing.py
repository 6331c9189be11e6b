"""`atomserve.testing.serve`: a class answers over real HTTP for as long as a block."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from atomserve import BadRequest, Blob, Example, Tensor, Text, Wrapper, current
from atomserve.errors import Invalid, NotFound, NotReady, PluginError, PluginFailed
from atomserve.testing import serve

Floats = Annotated[NDArray[np.float32], Tensor("float32")]


class Suffix(Wrapper):
    def load(self, config: dict[str, str]) -> None:
        self.suffix = config.get("suffix", "!")

    def predict(self, text: Text) -> Text:
        if text == "refuse":
            raise BadRequest("not this")
        if text == "fail":
            raise RuntimeError("a secret")
        return text + self.suffix


class Twice(Wrapper):
    def predict(self, numbers: Floats) -> Floats:
        return numbers * 2


class Size(Wrapper):
    def predict(self, data: Blob) -> int:
        return len(data)


class Ticks(Wrapper):
    def predict(self, to: int) -> Iterator[int]:
        for number in range(to):
            if number == 5:
                raise BadRequest("no more than five")
            yield number


class Asks(Wrapper):
    examples = (Example(inputs={"x": 1}, output="asks"),)

    def predict(self, x: int) -> str:
        return current().model


class AsksAsync(Wrapper):
    examples = (Example(inputs={"x": 1}, output="asks_async"),)

    async def predict(self, x: int) -> str:
        return current().model


class Unloadable(Wrapper):
    def load(self, config: dict[str, Any]) -> None:
        raise OSError("no weights here")

    def predict(self, x: int) -> int:
        return x


class Stuck(Wrapper):
    release: threading.Event

    def load(self, config: dict[str, Any]) -> None:
        type(self).release.wait(10)

    def predict(self, x: int) -> int:
        return x


def test_a_class_is_served_under_its_name_and_answers() -> None:
    with serve(Suffix) as server:
        assert server.call("suffix", text="hi") == "hi!"
        assert server.get("/readyz").status_code == 200
        assert server.url.startswith("http://127.0.0.1:")


def test_settings_and_names_are_given_as_in_the_settings_file() -> None:
    with serve(Suffix, name="ask", models={"ask": {"config": {"suffix": "?"}}}) as server:
        assert server.call("ask", text="hi") == "hi?"


def test_several_classes_share_a_server() -> None:
    with serve(Suffix, Twice, Size, Ticks) as server:
        assert server.call("size", data=b"12345") == 5
        assert server.call("size", data=Path(__file__)) == Path(__file__).stat().st_size
        assert server.call("ticks", to=3) == [0, 1, 2]
        answer = server.call("twice", numbers=np.array([[1, 2.5]], np.float32))
        np.testing.assert_array_equal(answer, np.array([[2, 5]], np.float32))


def test_an_example_is_a_request_that_a_wrapper_may_ask_about() -> None:
    with serve(Asks, AsksAsync) as server:
        assert server.call("asks", x=1) == "asks"
        assert server.call("asks_async", x=1) == "asks_async"


def test_a_failure_is_raised_as_the_error_that_it_is() -> None:
    with serve(Suffix, Ticks) as server:
        with pytest.raises(BadRequest, match="not this"):
            server.call("suffix", text="refuse")
        with pytest.raises(PluginFailed) as failed:
            server.call("suffix", text="fail")
        assert "secret" not in str(failed.value)
        with pytest.raises(Invalid):
            server.call("suffix", text=5)
        with pytest.raises(NotFound):
            server.call("nothing")
        with pytest.raises(BadRequest, match="five"):
            server.call("ticks", to=8)


def test_the_server_is_gone_after_the_block() -> None:
    before = threading.active_count()
    with serve(Suffix) as server:
        url = server.url
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/livez")
    assert threading.active_count() == before


def test_a_model_that_cannot_load_raises_its_reason() -> None:
    with pytest.raises(PluginError, match="no weights here"), serve(Unloadable):
        raise AssertionError("never served")


def test_a_model_that_does_not_load_in_time_is_not_waited_for() -> None:
    Stuck.release = threading.Event()
    with pytest.raises(NotReady), serve(Stuck, timeout=0.2, unload_timeout=0.1):
        raise AssertionError("never served")
    Stuck.release.set()


def test_an_error_in_the_block_ends_the_server_and_is_raised() -> None:
    with pytest.raises(ZeroDivisionError), serve(Suffix) as server:
        url = server.url
        raise ZeroDivisionError
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/livez")


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="nosuch"), serve(Suffix, nosuch=1):
        raise AssertionError("never served")


def test_workers_serve_what_they_can_import() -> None:
    with serve(Suffix, Ticks, executor="process", models={"ticks": {"slots": 2}}) as server:
        assert server.call("suffix", text="hi") == "hi!"
        assert server.call("ticks", to=3) == [0, 1, 2]
        status = server.get("/v1/status").json()
        assert len(status["models"]["ticks"]["slots"]) == 2
        url = server.url
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/livez")


def test_workers_that_cannot_load_raise_the_reason() -> None:
    failing = serve(Unloadable, executor="process", models={"unloadable": {"crash_limit": "1/60s"}})
    with pytest.raises(PluginError, match="no weights here"), failing:
        raise AssertionError("never served")


@pytest.mark.parametrize(
    ("wrappers", "given", "message"),
    [
        ((), {}, "no wrapper"),
        ((Suffix, Suffix), {}, "two wrappers are called suffix"),
        ((Suffix, Twice), {"name": "it"}, "two wrappers are called it"),
        ((Suffix,), {"models": {"sufix": {}}}, 'did you mean "suffix"'),
        ((Suffix,), {"models": {"suffix": {"executor": "process"}}}, "models.suffix.executor"),
    ],
)
def test_what_would_be_served_otherwise_than_it_reads_is_refused(
    wrappers: Any, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message), serve(*wrappers, **given):
        raise AssertionError("never served")
