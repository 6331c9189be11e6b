"""What all API processes have to know of a model that workers serve, a new one included."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from atomserve import control
from atomserve.supervisor.api_processes import ApiProcesses
from atomserve.supervisor.children import Child
from atomserve.supervisor.events import Event, ModelChanged


class Dialect(msgspec.Struct):
    """What is read here of a dialect that a model speaks beside our own."""

    path: str = ""


class Served(msgspec.Struct):
    """What is read here of a signature."""

    takes: str = "call"
    dialects: dict[str, Dialect] = {}


def paths_of(signature: msgspec.Raw) -> list[str]:
    """Return the paths that a model wants beside those that its name makes."""
    served = msgspec.json.decode(signature, type=Served)
    return [dialect.path for dialect in served.dialects.values() if dialect.path]


class Standing:
    """One model's offer and state, told once per change."""

    def __init__(self, apis: ApiProcesses, emit: Callable[[Event], None]) -> None:
        self.model = ""
        """Its name; empty until there is an offer."""
        self.state = ""
        self.detail = ""
        self._apis = apis
        self._emit = emit
        self._offer: control.Offer | None = None
        self._takes = ""

    def __repr__(self) -> str:
        return f"<Standing of {self.model}: {self.state}>"

    def offer(self, offer: control.Offer) -> None:
        """Tell what workers will serve, if that is new."""
        if offer != self._offer:
            self.model = offer.model
            self._offer = offer
            self._takes = msgspec.json.decode(offer.signature, type=Served).takes
            self._apis.post(offer)

    def become(self, state: str, detail: str = "") -> None:
        """Tell how the model is doing, if that is new."""
        if self._offer is not None and (state, detail) != (self.state, self.detail):
            self.state, self.detail = state, detail
            self._apis.post(control.ModelState(self.model, state, detail))
            self._emit(ModelChanged(None, self.model, state, detail, self._takes))

    def repeat_offer(self, child: Child) -> None:
        """Tell a new API process what workers serve."""
        if self._offer is not None:
            child.post(self._offer)

    def repeat_state(self, child: Child) -> None:
        """Tell a new API process how the model is doing."""
        if self._offer is not None:
            child.post(control.ModelState(self.model, self.state, self.detail))
