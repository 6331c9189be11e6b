"""A tensor of 4.9 MB to an identity plugin in a worker and back, beside Python's own ways.

    python -m benchmarks.tensor_engine [--rounds 7] [--seconds 1]

No HTTP: one caller that waits for each answer, and looks at it as an array.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any, cast

import anyio
import anyio.to_process
import numpy as np
from numpy.typing import NDArray

from atomserve.codecs.tensors import data_of, from_npy, npy_head, view
from atomserve.context import Context
from atomserve.engine.jobs import Payload
from atomserve.specs import Tensor
from benchmarks.load import family, spent
from benchmarks.models import identity
from benchmarks.rounds import Claim, Figures, arguments, judge, report
from tests.one_worker import Instance, instance

Array = NDArray[Any]
ANY = Tensor("float32")
CLAIMS = (Claim("atomserve worker", "anyio.to_process", least=20),)


async def through_worker(it: Instance, array: Array) -> Array:
    head, data = npy_head(array), data_of(array)
    sink = it.model.sink(len(head) + len(data))
    sink.write(head)
    sink.write(cast("bytes", data))  # any buffer will do; the surfaces have bytes
    payload = Payload(form="npy", body=sink.close(), media_type="application/x-npy", answer="npy")
    answer = await it.model.call(payload, Context(model="it")).answer()
    body = memoryview(answer.body)
    # With a head of its own it is the request's own bytes: the model answered a view of them.
    return view(ANY, array.shape, body) if answer.head else from_npy(ANY, body)


async def through_pool(pool: ProcessPoolExecutor, array: Array) -> Array:
    return await asyncio.get_running_loop().run_in_executor(pool, identity.same, array)


async def rate(call: Callable[[], Awaitable[Array]], seconds: float) -> tuple[float, float]:
    """Return the calls per second of one caller, and the seconds of CPU that each takes."""
    pids = family(os.getpid())
    began, before, count = time.perf_counter(), spent(pids), 0
    while (passed := time.perf_counter() - began) < seconds:
        await call()
        count += 1
    return count / passed, (spent(pids) - before) / count


async def measure(rounds: int, seconds: float) -> None:
    array = identity.picture()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        async with instance(identity.__file__) as it:
            ways: dict[str, Callable[[], Awaitable[Array]]] = {
                "atomserve worker": partial(through_worker, it, array),
                "anyio.to_process": partial(anyio.to_process.run_sync, identity.same, array),
                "ProcessPoolExecutor": partial(through_pool, pool, array),
            }
            for name, way in ways.items():
                assert np.array_equal(await way(), array), name
            figures: Figures = {name: [] for name in ways}
            computed: Figures = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in ways.items():
                    found, cpu = await rate(way, seconds)
                    figures[name].append(found)
                    computed[name].append(cpu)
    notes = {name: f"  {1e6 * median(cpu):.0f} us of CPU each" for name, cpu in computed.items()}
    report(figures, "calls/s", reference="anyio.to_process", notes=notes)
    judge(figures, *CLAIMS)


def main() -> None:
    options = arguments(__doc__, rounds=7, seconds=1.0)
    anyio.run(measure, options.rounds, options.seconds, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main()
