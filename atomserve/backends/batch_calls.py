"""How ``predict_batch`` is called: who shares a call, what it is given, what it may return."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

import numpy as np

from atomserve.codecs.references import settled
from atomserve.codecs.stacking import Stacker
from atomserve.context import Context, current_contexts
from atomserve.errors import BadAnswer
from atomserve.signature import Contract


class BatchCalls:
    """The calls of one wrapper; ``stack`` is its class attribute."""

    def __init__(self, contract: Contract, stack: object) -> None:
        self._fields = contract.request is not None
        self._stacker = Stacker(contract, stack) if stack else None

    def kind(self, request: Any, key: str) -> Hashable:
        """Return what must be equal for requests to share one call."""
        alike = None if self._stacker is None else self._stacker.kind(request)
        if not key:
            return alike
        return alike, getattr(request, key) if self._fields else request

    def parts(self, requests: Sequence[Any]) -> list[list[int]]:
        """Return the places of ``requests``, of one kind, by the calls that they are for."""
        if self._stacker is None:
            return [list(range(len(requests)))]
        return self._stacker.parts(requests)

    def argument(self, requests: Sequence[Any], contexts: Sequence[Context]) -> Any:
        """Return ``requests``, of one kind, as ``predict_batch`` is given them."""
        if self._stacker is None:
            return list(requests)
        for request, context in zip(requests, contexts, strict=True):
            context.shapes = self._stacker.shapes(request)
        return self._stacker.stack(requests)

    def call(
        self, method: Callable[[Any], Any], argument: Any, contexts: Sequence[Context]
    ) -> Sequence[Any]:
        """Call ``method`` once; an exception in an answer's place is that request's failure.

        Raises:
            BadAnswer: it did not return one answer for each request.
            BaseException: what it raised.
        """
        token = current_contexts.set(contexts)
        try:
            # In a list of its own, so that its references can be counted.
            returned = [method(argument)]
        finally:
            current_contexts.reset(token)
        self._check(returned[0], len(contexts))
        if isinstance(returned[0], np.ndarray):
            return cast("Sequence[Any]", settled(returned, self._made)[0])
        return settled(list(returned.pop()), self._made)

    def _check(self, answers: Any, count: int) -> None:
        scalar = isinstance(answers, np.ndarray) and answers.ndim == 0
        if scalar or not isinstance(answers, (list, tuple, np.ndarray)):
            what = type(answers).__name__
            raise BadAnswer(f"predict_batch returned {what}; expected a list or an array")
        if len(answers) != count:
            raise BadAnswer(f"{len(answers)} answers to {count} requests")

    def _made(self, array: Any) -> bool:
        return self._stacker is not None and self._stacker.made(array)

    def alone(self, method: Callable[[Any], Any], request: Any, context: Context) -> Any:
        """Call ``method`` with a batch of one; raises as `call` does, and what it answered."""
        argument = self.argument([request], [context])
        (answer,) = self.call(method, argument, [context])
        if isinstance(answer, BaseException):
            raise answer
        return answer
