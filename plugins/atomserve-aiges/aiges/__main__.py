"""``python -m aiges``: begin a wrapper's project, or pack one."""

from __future__ import annotations

import argparse
from importlib.metadata import version

import aiges
from atomserve.cli import main as atomserve


def arguments() -> argparse.Namespace:
    """Read the command line that AIGES documents."""
    parser = argparse.ArgumentParser(prog="python -m aiges")
    told = f"aiges {aiges.__version__}, by atomserve {version('atomserve')}"
    parser.add_argument("-v", "--version", action="version", version=told)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="write the project of a wrapper")
    create.add_argument("-n", "--name", default="wrapperDemo")
    create.add_argument("-p", "--path", default="./")
    pack = commands.add_parser("pack", help="put a project into one file")
    pack.add_argument("-l", "--location", default="./")
    pack.add_argument("-o", "--output", default="./pywrapper.tar.gz")
    return parser.parse_args()


def main() -> None:
    """Run the command of atomserve that does what is asked for."""
    given = arguments()
    if given.command == "create":
        atomserve(["new", given.name, "--kind", "aiges", "--path", given.path])
    else:
        atomserve(["pack", given.location, "-o", given.output])


if __name__ == "__main__":
    main()
