"""The settings that ``run`` and ``config`` take as flags, made from the table of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from atomserve.configuration.catalogue import Setting, catalogue
from atomserve.configuration.load import Loaded, load_settings


def with_settings(command: Callable[..., int]) -> Callable[..., int]:
    """Give ``command(loaded, ...)`` a flag for every setting, and call it with what they say."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    flags = {setting.key[0]: setting for setting in catalogue().values() if setting.flags}

    def call(config: Path | None = None, **given: Any) -> int:
        import os

        rest = {parameter.name: given.pop(parameter.name) for parameter in own}
        loaded = load_settings(config_file=config, environ=os.environ, flags=given)
        return command(loaded, **rest)

    file = typer.Option("--config", metavar="FILE", help="Settings file; atomserve.toml if unset.")
    parameters = [
        *own,
        keyword("config", Annotated[Path | None, file]),
        *(keyword(name, annotation(setting)) for name, setting in flags.items()),
    ]
    call.__name__ = command.__name__
    call.__doc__ = command.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def keyword(name: str, kind: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def annotation(setting: Setting) -> Any:
    """Return what typer needs to know; values are read with all the other settings."""
    positive = [flag for flag in setting.flags if not flag.startswith("--no-")]
    negative = [flag for flag in setting.flags if flag.startswith("--no-")]
    default = "" if setting.default in (None, ()) else f" [{setting.show(setting.default)}]"
    about = f"{setting.description}{default}"
    if negative:
        return Annotated[bool | None, typer.Option(f"{positive[0]}/{negative[0]}", help=about)]
    if isinstance(setting.default, tuple):
        return Annotated[list[str] | None, typer.Option(*positive, metavar="LIST", help=about)]
    return Annotated[str | None, typer.Option(*positive, metavar="VALUE", help=about)]


__all__ = ["Loaded", "with_settings"]
