"""What a wrapper declares about itself: its names and the fields of its request and response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from atomserve.compat.aiges.values import text

DATA_TYPES = {0: "text", 1: "audio", 2: "image", 3: "video"}


class Fields(NamedTuple):
    """A wrapper's fields, each kind in the order of its class."""

    inputs: tuple[Any, ...] = ()
    params: tuple[Any, ...] = ()
    accepts: tuple[Any, ...] = ()


class Declared(NamedTuple):
    """A wrapper's names, as its class or module gives them; empty where it gives none."""

    service_id: str
    version: str
    fields: Fields
    sub: str = "ase"
    call: str = "atmos"
    call_type: int = 0
    route: str = ""

    @property
    def open(self) -> bool:
        """Whether any payload may be sent: the wrapper declares no input."""
        return not self.fields.inputs

    @property
    def path(self) -> str:
        """The path that clients of AIGES use."""
        return self.route or f"/v1/private/{self.service_id}"


def declared(wrapper: Any, *, name: str = "") -> Declared:
    """Read what ``wrapper`` declares: a class, an instance or a module.

    Attributes are found as Python finds them, in base classes, too. Without a ``serviceId`` the
    wrapper is called ``name``.
    """
    version = getattr(wrapper, "version", "")
    return Declared(
        service_id=text(getattr(wrapper, "serviceId", "")) or name,
        version=text(version if isinstance(version, str | bytes | int | float) else ""),
        fields=fields_of(wrapper),
        sub=text(getattr(wrapper, "sub", "ase")),
        call=text(getattr(wrapper, "call", "atmos")),
        call_type=_number(getattr(wrapper, "call_type", 0)),
        route=text(getattr(wrapper, "route", "")),
    )


def fields_of(wrapper: Any) -> Fields:
    """Find the fields of ``wrapper``'s ``requestCls`` and ``responseCls``, by their type."""
    request = list(_attributes(getattr(wrapper, "requestCls", None)))
    response = list(_attributes(getattr(wrapper, "responseCls", None)))
    return Fields(
        inputs=tuple(value for _, value in request if is_payload(value)),
        params=tuple(value for _, value in request if is_param(value)),
        accepts=tuple(value for _, value in response if is_payload(value)),
    )


def is_payload(value: Any) -> bool:
    """Say whether ``value`` is a field of a payload, of this SDK or of the real one."""
    return hasattr(value, "key") and isinstance(getattr(value, "data_type", None), int)


def is_param(value: Any) -> bool:
    """Say whether ``value`` is a parameter, of this SDK or of the real one."""
    return hasattr(value, "key") and isinstance(getattr(value, "data_type", None), str)


def key_of(field: Any) -> str:
    """Return the field's key as text; some are written as bytes."""
    return text(field.key)


def kind_of(field: Any) -> str:
    """Return the name of a payload field's data: text, audio, image or video."""
    return DATA_TYPES.get(field.data_type, "other")


def _attributes(holder: Any) -> Iterator[tuple[str, Any]]:
    if holder is None:
        return
    cls = holder if isinstance(holder, type) else type(holder)
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(vars(base))
    if cls is not holder:
        found.update(getattr(holder, "__dict__", {}))
    yield from found.items()


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
