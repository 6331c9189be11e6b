"""The supervisor's answer to who asks how the instance is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import msgspec
import structlog

from atomserve import control
from atomserve.supervisor.surveys import Surveys


class Asker:
    """A child that asks."""

    def __init__(self) -> None:
        self.answers: list[control.Surveyed] = []

    def post(self, message: control.Surveyed) -> None:
        self.answers.append(message)


class Unspeakable:
    """A group of workers that nothing can be said of."""

    workers: tuple[()] = ()

    @property
    def standing(self) -> Any:
        raise LookupError("of all things")


def test_a_defect_in_an_answer_ends_nobody_and_the_next_question_is_answered() -> None:
    async def ask() -> None:
        apis = SimpleNamespace(running={}, restarts=[], doubt=lambda silent: None)
        surveys = Surveys(cast("Any", apis), [cast("Any", Unspeakable())])
        for number in (1, 2):
            await surveys.answer(cast("Any", asker), number)

    asker = Asker()
    with structlog.testing.capture_logs() as records:
        anyio.run(ask)
    assert [answer.number for answer in asker.answers] == [1, 2]
    assert msgspec.json.decode(asker.answers[0].document)["partial"] is True
    assert [record["event"] for record in records] == ["survey.failed", "survey.failed"]
