"""A model whose batch of n takes 5 ms and 0.2 ms more for each request."""

from __future__ import annotations

import time

import msgspec

from atomserve import Wrapper

FIXED = 0.005
EACH = 0.0002
MOST = 32


class Ask(msgspec.Struct):
    x: int


class Sleeping(Wrapper):
    """Answer with what was asked, after the time that a batch takes."""

    max_batch_size = MOST
    max_batch_delay = 0.005
    queue_size = 1024

    def predict_batch(self, requests: list[Ask]) -> list[int]:
        time.sleep(seconds(len(requests)))
        return [request.x for request in requests]


def seconds(size: int) -> float:
    return FIXED + EACH * size
