"""``atomserve exec``: run the script in an AIGES wrapper's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FAILED = 1


def execute(
    file: Annotated[Path, typer.Argument(help="A wrapper's file, or the folder it is in.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="What the script gets.")
    ] = None,
) -> int:
    """Run an AIGES wrapper's file as `python wrapper.py` does: its `schema()` and its `run()`.

    What it imports from `aiges` is there without being installed. Logs go to standard error. The
    exit code is the script's own, and 1 if a `run()` went wrong.

    Try:

    - `atomserve exec wrapper.py`
    - `atomserve exec wrapper/wrapper.py -- --verbose`
    """
    import logging
    import runpy
    import sys

    from atomserve.compat.aiges import local
    from atomserve.compat.aiges.finder import NAMES, installed
    from atomserve.compat.aiges.loader import find_file

    script = find_file(file)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    sys.argv = [str(file), *(arguments or ())]
    sys.path[0] = str(script.parent)
    own = [name for name in NAMES if (script.parent / f"{name}.py").is_file()]
    with installed(local=own):
        runpy.run_path(str(script), run_name="__main__")
    return 0 if all(local.verdicts) else FAILED
