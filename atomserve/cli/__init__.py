"""The command line, with one module per command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from atomserve import exits
from atomserve.cli.call import call
from atomserve.cli.check import check
from atomserve.cli.config import config
from atomserve.cli.execute import execute
from atomserve.cli.new import new
from atomserve.cli.pack import pack
from atomserve.cli.plugins import plugins
from atomserve.cli.resources import resources
from atomserve.cli.run import run
from atomserve.cli.schema import schema
from atomserve.cli.seal import seal, unseal
from atomserve.cli.status import status
from atomserve.cli.terminal import complain
from atomserve.errors import AtomError

app = typer.Typer(
    name="atomserve",
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, plugins, new, check, schema, call, status, config, pack, seal, unseal):
    app.command()(command)
app.add_typer(resources, name="resources")
# What follows the script's name is the script's.
app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(execute)


@app.callback(invoke_without_command=True)
def atomserve(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    """Serve blocking Python inference code as a fast, typed, observable HTTP service."""
    if version:
        from importlib.metadata import version as installed_version

        print(f"atomserve {installed_version('atomserve')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that ``arguments`` (the command line, if not given) name, and exit."""
    try:
        code = app(args=arguments, prog_name="atomserve", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as exc:
        complain(exc.format_message() or type(exc).__name__)
        code = exc.exit_code
    except AtomError as exc:
        complain(str(exc))
        code = exits.CONFIG
    except (typer.Abort, KeyboardInterrupt):
        code = exits.INTERRUPTED
    except BrokenPipeError:  # whoever read our output, `head` for instance, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
