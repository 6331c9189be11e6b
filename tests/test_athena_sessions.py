"""What a WebSocket of Athena says and does, frame by frame, without a socket or a clock."""

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atomserve.codecs.athena.answers import Expected
from atomserve.codecs.athena.codes import INACTIVE
from atomserve.codecs.athena.errors import WrapperRefused, failure, failure_of
from atomserve.codecs.athena.nodes import (
    AUDIO,
    BEGIN,
    CONTINUE,
    END,
    ONCE,
    TEXT,
    Accept,
    Node,
)
from atomserve.errors import DeadlineExceeded, Overloaded, PluginFailed, TooLarge
from atomserve.surfaces.athena.sessions import AthenaSession, new_sid
from atomserve.surfaces.athena.steps import (
    READ_TIMEOUT,
    SESSION_TIMEOUT,
    Close,
    End,
    Frame,
    Options,
    Send,
    Step,
)


def socket(now: float = 0.0, **options: Any) -> AthenaSession:
    numbers = itertools.count(1)
    return AthenaSession(Options(**options), now, make_sid=lambda: f"s{next(numbers)}")


def frame(status: Any = None, data: bytes = b"x", **header: Any) -> str:
    head = header if status is None else header | {"status": status}
    audio = base64.b64encode(data).decode()
    return json.dumps({"header": head, "payload": {"wav": {"audio": audio}}})


def begun(talk: AthenaSession, text: str = "") -> str:
    """Begin a session, and return its sid."""
    (step,) = talk.feed(text or frame(0), 0.0)
    assert isinstance(step, Frame)
    return step.sid


def said(steps: list[Step]) -> list[Any]:
    return [json.loads(step.body) for step in steps if isinstance(step, Send)]


def done(steps: list[Step]) -> list[Step]:
    return [step for step in steps if not isinstance(step, Send)]


def ack(sid: str = "s1", **more: Any) -> Any:
    return {"header": {"code": 0, "message": "success", "sid": sid, "status": 0} | more}


# The course of a session


def test_a_session_is_the_documented_one() -> None:
    talk = socket(header_pass=("uid",))
    opening = {
        "header": {"app_id": "a", "uid": "u", "status": 0},
        "parameter": {"s": {"lang": "zh", "result": {"encoding": "utf8", "format": "json"}}},
        "payload": {"wav": {"audio": "aGVsbG8=", "status": 0, "seq": 0}},
    }
    (first,) = talk.feed(json.dumps(opening), 1.0)
    assert isinstance(first, Frame)
    assert (first.sid, first.seq, first.last) == ("s1", 1, False)
    assert first.request.params == {"lang": "zh", "sid": "s1", "uid": "u"}
    assert first.request.nodes == [
        Node("wav", b"hello", AUDIO, BEGIN, {"status": "0", "seq": "0"}),
    ]
    assert said(talk.opened("s1", 0.0)) == [ack()]

    (second,) = talk.feed(frame(1), 2.0)
    assert isinstance(second, Frame)
    assert (second.seq, second.last, second.request.nodes[0].status) == (2, False, CONTINUE)
    steps = talk.answer("s1", [Node("result", b"{}", TEXT, BEGIN)], 2.5)
    assert said(steps) == [
        {
            "header": {"code": 0, "message": "success", "sid": "s1", "status": 0},
            "payload": {
                "result": {
                    "encoding": "utf8",
                    "format": "json",
                    "text": "e30=",
                    "seq": 0,
                    "status": 0,
                }
            },
        }
    ]
    (third,) = talk.feed(frame(2), 3.0)
    assert isinstance(third, Frame)
    assert (third.seq, third.last, third.request.nodes[0].status) == (3, True, END)
    steps = talk.answer("s1", [Node("result", b"{}", TEXT, END)], 3.5)
    (final,) = said(steps)
    assert final["header"]["status"] == 2
    assert (final["payload"]["result"]["seq"], final["payload"]["result"]["status"]) == (1, 2)
    assert done(steps) == [End("s1", "finished")]
    assert not talk.closed  # closing is the client's


def test_a_result_of_status_once_has_the_server_close() -> None:
    talk = socket()
    sid = begun(talk)
    steps = talk.answer(sid, [Node("r", b"", TEXT, ONCE)], 1.0)
    assert [document["header"]["status"] for document in said(steps)] == [0, 3]
    assert done(steps) == [End(sid, "finished"), Close(1000, "")]
    assert talk.closed


def test_the_acknowledgement_comes_once_and_before_every_result() -> None:
    talk = socket()
    sid = begun(talk)
    steps = talk.answer(sid, [Node("r", b"", TEXT, BEGIN)], 1.0)
    assert said(steps)[0] == ack()
    assert talk.opened(sid, 0.0) == []


def test_a_wrapper_that_tells_no_end_is_ended() -> None:
    talk = socket()
    steps = talk.finish(begun(talk), 0.0)
    assert said(steps) == [ack(), ack(status=2)]
    assert done(steps) == [End("s1", "finished")]


def test_an_answer_without_outputs_only_acknowledges() -> None:
    talk = socket()
    sid = begun(talk)
    assert said(talk.answer(sid, [], 1.0)) == [ack()]
    assert talk.answer(sid, [], 1.0) == []


def test_a_key_that_comes_twice_makes_two_results() -> None:
    talk = socket()
    sid = begun(talk)
    talk.opened(sid, 0.0)
    nodes = [Node("r", b"a", TEXT, CONTINUE), Node("q"), Node("r", b"b", TEXT, END)]
    nodes[1].status = CONTINUE
    first, second = said(talk.answer(sid, nodes, 1.0))
    assert list(first["payload"]) == ["r", "q"]
    assert (first["header"]["status"], second["header"]["status"]) == (1, 2)
    assert second["payload"]["r"]["seq"] == 1


def test_nothing_follows_the_result_that_ends() -> None:
    talk = socket()
    sid = begun(talk)
    talk.opened(sid, 0.0)
    nodes = [Node("r", b"a", TEXT, END), Node("r", b"b", TEXT, END)]
    steps = talk.answer(sid, nodes, 1.0)
    assert (len(said(steps)), done(steps)) == (1, [End(sid, "finished")])
    for late in (talk.answer(sid, nodes, 1.0), talk.finish(sid, 1.0), talk.opened(sid, 0.0)):
        assert late == []
    assert talk.fail(sid, failure(INACTIVE), 1.0) == []


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([BEGIN], 0),
        ([BEGIN, BEGIN], 0),
        ([BEGIN, CONTINUE], 1),
        ([CONTINUE], 1),
        ([CONTINUE, END], 2),
        ([END, ONCE], 3),
    ],
)
def test_the_status_of_a_result_is_that_of_its_outputs(statuses: list[int], status: int) -> None:
    talk = socket()
    sid = begun(talk)
    nodes = [Node(str(place), b"", TEXT, each) for place, each in enumerate(statuses)]
    assert said(talk.answer(sid, nodes, 1.0))[1]["header"]["status"] == status


# What the client's frames say


@pytest.mark.parametrize(
    ("header", "last", "status"),
    [(0, False, 0), (1, False, 1), (2, True, 2), (3, True, 3), (None, False, 0)],
)
def test_the_first_frame_may_be_of_any_status(header: Any, last: bool, status: int) -> None:
    (step,) = socket().feed(frame(header), 0.0)
    assert isinstance(step, Frame)
    assert (step.seq, step.last, step.request.nodes[0].status) == (1, last, status)


def test_later_frames_need_no_header() -> None:
    talk = socket()
    begun(talk)
    (step,) = talk.feed('{"payload":{"wav":{"audio":"aGVsbG8="}}}', 1.0)
    assert isinstance(step, Frame)
    assert (step.last, step.request.nodes[0].status) == (False, CONTINUE)
    (step,) = talk.feed('{"payload":{"wav":{"audio":"","status":2}}}', 1.0)
    assert isinstance(step, Frame)
    assert step.last


def test_without_a_header_the_last_input_ends_the_session() -> None:
    talk = socket()
    (step,) = talk.feed('{"payload":{"a":{"status":0},"b":{"status":3}}}', 0.0)
    assert isinstance(step, Frame)
    assert not step.last
    (step,) = talk.feed('{"payload":{"a":{"status":2}}}', 0.0)
    assert isinstance(step, Frame)
    assert step.last


def test_frames_may_be_bytes() -> None:
    (step,) = socket().feed(frame(0).encode(), 0.0)
    assert isinstance(step, Frame)


def test_a_frame_after_the_last_is_an_error() -> None:
    talk = socket()
    sid = begun(talk, frame(2))
    steps = talk.feed(frame(1), 1.0)
    assert said(steps)[0]["header"]["code"] == 10202
    assert done(steps) == [End(sid, "failed"), Close(1000, "the session has ended")]


def test_a_frame_sent_before_the_end_was_known_is_dropped() -> None:
    talk = socket()
    sid = begun(talk)
    talk.answer(sid, [Node("r", b"", TEXT, END)], 1.0)
    assert talk.feed(frame(1), 2.0) == talk.feed(frame(2), 2.0) == talk.feed(frame(), 2.0) == []
    (step,) = talk.feed(frame(0), 3.0)
    assert isinstance(step, Frame)
    assert (step.sid, step.seq) == ("s2", 1)


# What goes wrong


def error(code: int, message: str, sid: str = "s1", **more: Any) -> Any:
    return {"header": {"code": code, "message": message, "sid": sid, "status": 0} | more}


def test_a_wrappers_error_reaches_the_client() -> None:
    talk = socket()
    sid = begun(talk)
    steps = talk.fail(sid, failure_of(WrapperRefused.of("create", 42, "no model")), 1.0)
    assert said(steps) == [error(10905, "no model;code=42", user_code=42)]
    assert done(steps) == [End(sid, "failed"), Close(1000, "no model;code=42")]
    assert talk.closed
    assert talk.feed(frame(1), 1.0) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"header":1}', b"\xff", "[" * 100_000])
def test_a_frame_that_is_no_envelope_ends_the_session(text: Any) -> None:
    talk = socket()
    sid = begun(talk)
    steps = talk.feed(text, 1.0)
    (document,) = said(steps)
    assert document["header"]["code"] == 10163
    assert document["header"]["sid"] == sid
    assert document["header"]["message"].startswith("parse request json error: ")
    assert done(steps)[0] == End(sid, "failed")
    assert isinstance(steps[-1], Close)


def test_a_first_frame_that_cannot_be_read_begins_nothing() -> None:
    talk = socket()
    steps = talk.feed('{"payload":{"wav":{"audio":"%"}}}', 0.0)
    assert said(steps)[0]["header"]["code"] == 10001
    (close,) = done(steps)
    assert isinstance(close, Close)
    assert close.code == 1000


def test_an_ignored_error_ends_the_session_without_a_word() -> None:
    talk = socket()
    sid = begun(talk)
    steps = talk.fail(sid, failure(INACTIVE), 1.0)
    assert said(steps) == []
    assert done(steps)[0] == End(sid, "failed")


def test_a_strict_client_is_told_of_an_output_it_did_not_name() -> None:
    talk = socket(expected=Expected(strict=True, text="base64"))
    sid = begun(talk)
    talk.opened(sid, 0.0)
    steps = talk.answer(sid, [Node("r", b"", TEXT, BEGIN)], 1.0)
    assert said(steps) == [error(10106, "wrapper output data invalid(key or type)")]
    assert done(steps)[0] == End(sid, "failed")


def test_the_wrappers_own_class_describes_what_the_client_does_not() -> None:
    derived = {"r": Accept(TEXT, {"format": "json"})}
    talk = socket(expected=Expected(derived=derived, text="gateway"))
    sid = begun(talk)
    (_, result) = said(talk.answer(sid, [Node("r", b"[1]", TEXT, BEGIN)], 1.0))
    assert result["payload"]["r"]["text"] == [1]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (failure_of(TooLarge()), 1009),
        (failure_of(Overloaded()), 1013),
        (failure_of(DeadlineExceeded()), 1013),
        (failure_of(PluginFailed()), 1011),
        (failure(10001), 1008),
    ],
    ids=lambda each: str(getattr(each, "number", each)),
)
def test_native_close_codes_tell_what_happened(what: Any, code: int) -> None:
    for native, expected in ((True, code), (False, 1000)):
        talk = socket(native=native)
        close = talk.fail(begun(talk), what, 0.0)[-1]
        assert isinstance(close, Close)
        assert close.code == expected


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_reason_fits_into_a_close_frame(text: str) -> None:
    talk = socket()
    close = talk.fail(begun(talk), failure(10909, text or "x"), 0.0)[-1]
    assert isinstance(close, Close)
    assert len(close.reason.encode()) <= 123


# Time


def test_a_client_that_says_nothing_is_cut_off_without_an_error() -> None:
    talk = socket(now=100.0)
    assert talk.deadline() == 100.0 + READ_TIMEOUT
    assert talk.expire(100.0 + READ_TIMEOUT - 0.001) == []
    assert talk.expire(100.0 + READ_TIMEOUT) == [Close(1000, "time out")]
    assert talk.expire(1000.0) == []


def test_silence_ends_the_sessions() -> None:
    talk = socket()
    sid = begun(talk)
    talk.opened(sid, 0.0)
    assert talk.expire(READ_TIMEOUT) == [End(sid, "timeout"), Close(1000, "time out")]


def test_who_waits_for_the_wrapper_is_not_silent() -> None:
    talk = socket()
    sid = begun(talk)
    assert talk.deadline() == SESSION_TIMEOUT  # there is no session yet to say more in
    talk.opened(sid, 50.0)
    assert talk.deadline() == 50.0 + READ_TIMEOUT
    talk.feed(frame(2), 60.0)
    assert talk.deadline() == SESSION_TIMEOUT  # all is said, and the wrapper thinks
    assert talk.expire(100.0) == []
    talk.answer(sid, [Node("r", b"", TEXT, END)], 110.0)
    assert talk.deadline() == 110.0 + READ_TIMEOUT


def test_who_never_got_a_session_lacked_a_licence() -> None:
    talk = socket()
    sid = begun(talk)
    steps = talk.expire(SESSION_TIMEOUT)
    assert said(steps) == [error(10110, "service license not enough", sid)]
    assert done(steps)[0] == End(sid, "timeout")


def test_whoever_speaks_puts_the_end_off() -> None:
    talk = socket()
    sid = begun(talk)
    talk.opened(sid, 0.0)
    talk.feed(frame(1), 10.0)
    assert talk.deadline() == 10.0 + READ_TIMEOUT
    talk.answer(sid, [Node("r", b"", TEXT, BEGIN)], 20.0)
    assert talk.deadline() == 20.0 + READ_TIMEOUT


def test_a_session_may_not_last_for_ever() -> None:
    talk = socket(read_timeout=1000.0)
    sid = begun(talk)
    talk.opened(sid, 0.0)
    talk.feed(frame(1), 170.0)
    assert talk.deadline() == SESSION_TIMEOUT
    assert talk.expire(SESSION_TIMEOUT - 0.001) == []
    steps = talk.expire(SESSION_TIMEOUT)
    assert said(steps) == [error(10114, "session timeout")]
    assert done(steps) == [End(sid, "timeout"), Close(1000, "session timeout")]
    assert talk.expire(SESSION_TIMEOUT) == []


def test_whoever_leaves_ends_the_session() -> None:
    talk = socket()
    sid = begun(talk)
    assert talk.left() == [End(sid, "left")]
    assert talk.left() == talk.answer(sid, [], 1.0) == talk.feed(frame(), 1.0) == []


# Several sessions over one WebSocket


def test_sessions_are_told_apart_by_their_cid() -> None:
    talk = socket(multiplexed=True)
    one, two = begun(talk, frame(0, cid="1")), begun(talk, frame(0, cid="2"))
    assert one != two
    assert said(talk.opened(one, 0.0)) == [ack(one, cid="1")]
    (step,) = talk.feed(frame(1, cid="2"), 1.0)
    assert isinstance(step, Frame)
    assert (step.sid, step.seq, step.cid) == (two, 2, "2")
    steps = talk.fail(one, failure(10907, "no"), 0.0)
    assert said(steps) == [error(10907, "no", one, cid="1")]
    assert done(steps) == [End(one, "failed")]
    steps = talk.answer(two, [Node("r", b"", TEXT, ONCE)], 1.0)
    assert [document["header"]["cid"] for document in said(steps)] == ["2", "2"]
    assert done(steps) == [End(two, "finished")]
    assert not talk.closed


def test_a_cid_means_nothing_where_sessions_come_one_at_a_time() -> None:
    talk = socket()
    sid = begun(talk, frame(0, cid="1"))
    (step,) = talk.feed(frame(1, cid="2"), 1.0)
    assert isinstance(step, Frame)
    assert step.sid == sid
    assert said(talk.opened(sid, 0.0)) == [ack()]


def test_a_bad_frame_harms_its_own_session_alone() -> None:
    talk = socket(multiplexed=True)
    one, two = begun(talk, frame(0, cid="1")), begun(talk, frame(0))
    steps = talk.feed('{"header":{"cid":"1"},"payload":{"wav":{"audio":"%"}}}', 1.0)
    assert said(steps)[0]["header"]["sid"] == one
    assert done(steps) == [End(one, "failed")]
    steps = talk.feed("{", 1.0)
    (document,) = said(steps)
    assert document["header"]["sid"] not in (one, two)
    assert done(steps) == []
    assert talk.left() == [End(two, "left")]


def test_there_is_a_bound_to_the_sessions_of_a_websocket() -> None:
    talk = socket(multiplexed=True, most_sessions=2)
    one = begun(talk, frame(0, cid="1"))
    begun(talk, frame(0, cid="2"))
    steps = talk.feed(frame(0, cid="3"), 1.0)
    assert said(steps) == [error(10110, "service license not enough", "s3", cid="3")]
    assert done(steps) == []
    talk.fail(one, failure(10907), 0.0)
    begun(talk, frame(0, cid="3"))


def test_a_late_answer_does_not_reach_a_new_session_of_the_same_cid() -> None:
    talk = socket(multiplexed=True)
    old = begun(talk, frame(0, cid="1"))
    talk.finish(old, 0.0)
    new = begun(talk, frame(0, cid="1"))
    assert talk.answer(old, [Node("r", b"", TEXT, BEGIN)], 1.0) == []
    assert said(talk.opened(new, 0.0)) == [ack(new, cid="1")]


def test_the_names_of_ended_sessions_are_forgotten_in_the_end() -> None:
    talk = socket(multiplexed=True)
    for number in range(300):
        talk.finish(begun(talk, frame(0, cid=str(number))), 0.0)
    assert talk.feed(frame(1, cid="299"), 1.0) == []
    (step,) = talk.feed(frame(1, cid="0"), 1.0)
    assert isinstance(step, Frame)


def test_a_sid_has_32_characters() -> None:
    assert len(new_sid()) == 32
    assert new_sid() != new_sid()


# Whatever happens

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["header", "parameter", "payload", "status", "cid", "wav", "audio", "text"])
odd = st.dictionaries(keys, st.dictionaries(keys, json_values, max_size=3) | json_values)


@settings(deadline=None)
@given(st.lists(odd.map(json.dumps) | st.text() | st.binary(), max_size=5), st.booleans())
def test_any_frames_are_taken_or_told_of(frames: list[str | bytes], multiplexed: bool) -> None:
    talk = socket(multiplexed=multiplexed)
    for text in frames:
        for step in talk.feed(text, 0.0):
            assert not isinstance(step, Send) or json.loads(step.body)["header"]["code"] > 0


class Whatever(RuleBasedStateMachine):
    """Frames, results, errors and time in any order, checked against what each session is told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.talk = socket(multiplexed=True, most_sessions=4)
        self.open: dict[str, dict[str, Any]] = {}
        self.ended: set[str] = set()
        self.closed = False

    def take(self, steps: list[Step]) -> None:
        for step in steps:
            assert not self.closed
            if isinstance(step, Frame):
                record = self.open.setdefault(
                    step.sid, {"heard": 0, "told": {}, "acked": False, "last": False}
                )
                assert step.sid not in self.ended
                assert not record["last"]
                record["heard"] += 1
                record["last"] = step.last
                assert step.seq == record["heard"]
            elif isinstance(step, Send):
                self.told(json.loads(step.body))
            elif isinstance(step, End):
                assert step.sid not in self.ended
                self.ended.add(step.sid)
                del self.open[step.sid]
            else:
                self.closed = True

    def told(self, document: Any) -> None:
        header = document["header"]
        assert header["sid"] not in self.ended
        record = self.open.get(header["sid"])
        if header["code"]:
            return
        assert record is not None
        if not record["acked"]:
            assert document == ack(header["sid"], cid=header["cid"])
            record["acked"] = True
        for key, block in document.get("payload", {}).items():
            assert block["seq"] == record["told"].get(key, 0)
            record["told"][key] = block["seq"] + 1

    @rule(cid=st.sampled_from("abcdef"), status=st.sampled_from([None, 0, 1, 2, 3]))
    def say(self, cid: str, status: int | None) -> None:
        self.take(self.talk.feed(frame(status, cid=cid), self.now))

    @rule(text=st.sampled_from(["{", '{"header":{"cid":"a"},"payload":{"k":{"text":"%"}}}']))
    def say_nonsense(self, text: str) -> None:
        self.take(self.talk.feed(text, self.now))

    @rule(data=st.data(), pairs=st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 3))))
    @precondition(lambda self: self.open or self.ended)
    def answer(self, data: st.DataObject, pairs: list[tuple[str, int]]) -> None:
        sid = data.draw(st.sampled_from(sorted({*self.open, *self.ended})))
        nodes = [Node(key, b"x", TEXT, status) for key, status in pairs]
        self.take(self.talk.answer(sid, nodes, self.now))

    @rule(data=st.data(), how=st.sampled_from(["opened", "finish", "fail"]))
    @precondition(lambda self: self.open or self.ended)
    def tell(self, data: st.DataObject, how: str) -> None:
        sid = data.draw(st.sampled_from(sorted({*self.open, *self.ended})))
        more = [failure(10907)] if how == "fail" else []
        self.take(getattr(self.talk, how)(sid, *more, self.now))

    @rule(seconds=st.sampled_from([1.0, 14.0, 15.0, 181.0]))
    def wait(self, seconds: float) -> None:
        due = self.talk.deadline()
        self.now += seconds
        steps = self.talk.expire(self.now)
        if self.now < due:
            assert not steps
        self.take(steps)

    @invariant()
    def sessions_are_bounded(self) -> None:
        assert len(self.open) <= 4

    def teardown(self) -> None:
        self.take(self.talk.left())
        assert not self.open


TestWhatever = Whatever.TestCase
TestWhatever.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
