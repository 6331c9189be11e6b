"""A slot for batches in either backend, and batches to put into it by hand."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
from one_worker import instance

from atomserve.backends.local import ThreadBackend
from atomserve.backends.runner import Runner
from atomserve.context import Context
from atomserve.engine.backend import Slot
from atomserve.engine.engine import Engine
from atomserve.engine.jobs import AnswerForm, Job, Payload
from atomserve.engine.models import Model
from atomserve.engine.options import Options, class_options
from atomserve.engine.replies import One
from atomserve.errors import Abandoned, AtomError
from atomserve.loading import load_class
from atomserve.plugins import Source
from atomserve.signature import read_contract
from atomserve.wrapper import Wrapper

HEAD = """
    import os, time
    from dataclasses import dataclass
    from pathlib import Path
    from typing import Annotated, Any
    import msgspec
    import numpy as np
    from atomserve import BadRequest, Example, Tensor, Wrapper, current, current_batch

    HERE = Path(__file__).parent
"""


class Rig:
    """A model with one slot; ``hung`` is what a worker was told off for."""

    def __init__(self, model: Model, hung: list[Any], folder: Path) -> None:
        self.model = model
        self.hung = hung
        self.folder = folder

    @property
    def slot(self) -> Slot:
        return self.model.slots[0]

    def jobs(
        self,
        requests: Sequence[Any],
        *,
        deadline: float | None = None,
        answer: AnswerForm = "json",
    ) -> list[Job]:
        return [
            Job(
                Payload(body=msgspec.json.encode(request), answer=answer),
                Context(model="it", request_id=f"r{number}", deadline=deadline),
                One(),
            )
            for number, request in enumerate(requests)
        ]

    def run(
        self, *requests: Any, deadline: float | None = None, answer: AnswerForm = "json"
    ) -> list[Job]:
        """Run ``requests`` as one batch."""
        jobs = self.jobs(requests, deadline=deadline, answer=answer)
        self.slot.run(jobs)
        return jobs

    async def ask(self, *requests: Any) -> list[Any]:
        """Return the answers to one batch, an error in the place of each that failed."""
        return await self.answers(self.run(*requests))

    async def answers(self, jobs: Sequence[Job]) -> list[Any]:
        return [await self.answer(job) for job in jobs]

    async def body(self, job: Job) -> bytes:
        assert isinstance(job.reply, One)
        with anyio.fail_after(10):
            answer = await job.reply
        return answer.head + bytes(answer.body)

    async def answer(self, job: Job) -> Any:
        try:
            return msgspec.json.decode(await self.body(job))
        except AtomError as exc:
            return exc

    async def leave(self, job: Job) -> None:
        """Be the client that waits for ``job`` no more."""
        job.give_up(Abandoned())
        assert isinstance(await self.answer(job), Abandoned)

    async def sees(self, name: str) -> None:
        """Wait until the wrapper has made the file ``name``."""
        with anyio.fail_after(10):
            while not (self.folder / name).exists():
                await anyio.sleep(0.002)

    async def free(self, batches: int = 1) -> None:
        with anyio.fail_after(10):
            while self.slot.room < batches:
                await anyio.sleep(0.002)


@asynccontextmanager
async def rig(kind: str, folder: Path, text: str, **options: Any) -> AsyncIterator[Rig]:
    """Serve the wrapper in ``text`` by one slot, in a thread or in a worker."""
    file = folder / "it.py"
    file.write_text(textwrap.dedent(HEAD) + textwrap.dedent(text))
    if kind == "process":
        async with instance(file, **options) as it:
            found = Rig(it.model, it.hung, folder)
            await found.free()
            yield found
        return
    source = Source(name="it", kind="file", target=str(file), spec=str(file))
    cls = load_class(source, base=Wrapper)
    decided = msgspec.convert({**class_options(cls), **options}, Options)
    runner = partial(Runner, cls, read_contract(cls), model="it", config={})
    engine = Engine(expected=1)
    engine.add("it", ThreadBackend(runner, decided))
    async with engine.running():
        model = engine.model("it")
        while model.state == "loading":
            await anyio.sleep(0.001)
        assert model.state == "ready", model.detail
        found = Rig(model, [], folder)
        await found.free()
        yield found
