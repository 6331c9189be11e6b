"""Which argument each parameter of a wrapper's method wants: by name first, then by place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from atomserve.compat.aiges.generations import Generation
from atomserve.errors import PluginError

_NAMES = {
    "params": ("params", "param", "parameters"),
    "request": ("reqdata", "datas", "req", "data", "datalist", "request", "resdata"),
    "results": ("respdata",),
    "tag": ("usrtag", "usertag", "tag"),
    "sid": ("sid", "sessionid"),
    "handle": ("handle", "hdl"),
    "patch": ("persid", "psrid", "resid", "presid", "patchid"),
    "patches": ("psrids", "persids"),
    "count": ("psrcnt",),
    "config": ("config", "conf", "cfg"),
    "code": ("ret", "code", "err", "errorcode"),
    "zero": ("errnum",),
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}


class Form(NamedTuple):
    """How the newest loader of a generation calls a method, and what else older ones gave it."""

    attribute: str
    newest: tuple[str, ...]
    more: tuple[str, ...] = ()


_FUNCTIONS = {
    "init": Form("wrapperInit", ("config",)),
    "fini": Form("wrapperFini", ()),
    "once": Form(
        "wrapperOnceExec", ("tag", "params", "request", "results", "patches", "count"), ("sid",)
    ),
    "once_async": Form("wrapperOnceExecAsync", ("params", "request", "tag", "patch"), ("sid",)),
    "create": Form("wrapperCreate", ("tag", "params", "patches", "count"), ("sid",)),
    "write": Form("wrapperWrite", ("handle", "request"), ("sid",)),
    "read": Form("wrapperRead", ("handle",), ("results", "sid")),
    "destroy": Form("wrapperDestroy", ("handle",), ("sid",)),
    "load_res": Form("wrapperLoadRes", ("request", "patch")),
    "unload_res": Form("wrapperUnloadRes", ("patch",)),
    "error": Form("wrapperError", ("code",)),
}
_METHODS = _FUNCTIONS | {
    "once": Form("wrapperOnceExec", ("params", "request", "tag", "patch"), ("sid",)),
    "create": Form("wrapperCreate", ("params", "sid", "patch", "tag")),
    "read": Form("wrapperRead", ("handle",), ("sid",)),
}
_THIRD = {
    "init": Form("init", ("config",)),
    "fini": Form("fini", ()),
    "once": Form("exec", ("tag", "params", "request", "patches"), ("sid",)),
    "create": Form("create", ("tag", "params", "patches"), ("sid",)),
    "write": Form("write", ("handle", "request"), ("sid",)),
    "read": Form("read", ("handle",), ("sid",)),
    "destroy": Form("destroy", ("handle",), ("sid",)),
    "load_res": Form("load_res", ("request", "patch")),
    "unload_res": Form("unload_res", ("patch",)),
    "error": Form("error", ("code",)),
}
FORMS: Mapping[Generation, Mapping[str, Form]] = {
    "G1": _FUNCTIONS,
    "G2": _METHODS,
    "G3": _THIRD,
}


class Slot(NamedTuple):
    """One argument: its role, the keyword that it is passed by, and whether it must be a number."""

    role: str
    keyword: str | None = None
    number: bool = False


class Plan(NamedTuple):
    """A method, and the arguments that it is called with."""

    function: Callable[..., Any]
    attribute: str
    slots: tuple[Slot, ...]

    def takes(self, role: str) -> bool:
        """Say whether the method is given ``role``."""
        return any(slot.role == role for slot in self.slots)

    def call(self, values: Mapping[str, Any]) -> Any:
        """Call the method with those of ``values`` that it wants."""
        placed: list[Any] = []
        named: dict[str, Any] = {}
        for role, keyword, number in self.slots:
            value = _number(values[role]) if number else values[role]
            if keyword is None:
                placed.append(value)
            else:
                named[keyword] = value
        return self.function(*placed, **named)


def plan(owner: Any, method: str, generation: Generation) -> Plan | None:
    """Plan how to call ``owner``'s ``method``; None if it has none.

    Raises `PluginError` for a parameter that nothing can be given for.
    """
    form = FORMS[generation].get(method)
    function = None if form is None else _function(owner, form.attribute, method)
    if form is None or function is None:
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of a function that is not Python code
        return Plan(function, form.attribute, tuple(Slot(role) for role in form.newest))
    if generation == "G1" and not _first_form(parameters, method):
        form = _METHODS[method]
    return Plan(function, form.attribute, tuple(_slots(parameters, method, form)))


def attribute_of(method: str, generation: Generation) -> str:
    """Return what wrappers of ``generation`` call ``method``."""
    form = FORMS[generation].get(method)
    return method if form is None else form.attribute


def _function(owner: Any, attribute: str, method: str) -> Callable[..., Any] | None:
    found: Any = getattr(owner, attribute, None)
    if not callable(found):
        return None
    raw: Any = next(
        (vars(cls)[attribute] for cls in type(owner).__mro__ if attribute in vars(cls)), None
    )
    if inspect.isfunction(raw) and attribute not in getattr(owner, "__dict__", {}):
        names = list(inspect.signature(raw).parameters)
        if not names or _role(names[0], method) is not None:
            found = raw  # written in a class, without self
    return cast("Callable[..., Any]", found)


def _first_form(parameters: Sequence[inspect.Parameter], method: str) -> bool:
    """Say whether functions are called as the first loaders did, or as methods are now."""
    if method not in ("once", "create"):
        return True
    known = {_role(p.name, method) for p in parameters}
    if known & {"results", "patches", "count"}:
        return True
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return True
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return None in known and len(placed) == len(_FUNCTIONS[method].newest)


def _slots(parameters: Sequence[inspect.Parameter], method: str, form: Form) -> list[Slot]:
    named = {p.name: role for p in parameters if (role := _role(p.name, method)) is not None}
    free = [role for role in (*form.newest, *form.more) if role not in named.values()]
    slots: list[Slot] = []
    skipped = False
    for index, parameter in enumerate(parameters):
        if parameter.kind == parameter.VAR_POSITIONAL:
            slots += [Slot(role) for role in form.newest if role in free and not skipped]
            continue
        if parameter.kind == parameter.VAR_KEYWORD:
            if len(parameters) == 1:
                slots += [Slot(role, _KEYWORDS.get(role, role)) for role in form.newest]
            continue
        role = named.get(parameter.name)
        if role is None and parameter.default is not parameter.empty:
            skipped = True
            continue
        if role is None:
            role = _by_place(index, form, free, parameter)
        keyword = skipped or parameter.kind == parameter.KEYWORD_ONLY
        slots.append(
            Slot(role, parameter.name if keyword else None, _wants_number(role, parameter, form))
        )
    return slots


_KEYWORDS = {"request": "reqData", "tag": "usrTag", "patch": "persId", "code": "ret"}


def _by_place(index: int, form: Form, free: list[str], parameter: inspect.Parameter) -> str:
    order = (*form.newest, *form.more)
    role = order[index] if index < len(order) and order[index] in free else next(iter(free), None)
    if role is None or parameter.kind == parameter.KEYWORD_ONLY:
        raise PluginError(f"{form.attribute}: no loader gives it a parameter {parameter.name}")
    free.remove(role)
    return role


def _role(name: str, method: str) -> str | None:
    role = _ROLES.get(name.replace("_", "").lower())
    if method == "error" and role == "zero":
        return "code"
    if role == "results" and method not in ("once", "read"):
        return "request"
    return role


def _wants_number(role: str, parameter: inspect.Parameter, form: Form) -> bool:
    if role != "patch":
        return False
    if parameter.default is not parameter.empty:
        return isinstance(parameter.default, int)
    if parameter.annotation is not parameter.empty:
        return parameter.annotation in (int, "int")
    # The loaders whose examples call it so gave a number, as `persId = 0` gets one.
    return form.attribute in _BY_NUMBER and parameter.name.replace("_", "").lower() == "resid"


_BY_NUMBER = ("wrapperLoadRes", "wrapperUnloadRes")


def _number(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError):  # a resource by another name
        return value
