"""Run the checks, then pytest over the project and its plugins; pytest's summary comes last."""

from __future__ import annotations

import sys

from workspace import PYTHON, ROOT, install, run, workspace

# Its names may resolve in workers alone, which is tested; its own tests install it elsewhere.
APART = {"atomserve-aiges", "atomserve-linker-atom"}


def plugins() -> list[str]:
    projects = {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}
    found = sorted(projects - APART)
    return [part for name in found for part in ("-e", f"./plugins/{name}")]


def tests() -> list[str]:
    found = [ROOT / "tests", *sorted(ROOT.glob("plugins/*/tests"))]
    return [str(path.relative_to(ROOT)) for path in found if path.is_dir()]


def on_granian() -> list[str]:
    """Return the files whose tests start instances, which have a second HTTP server to run on."""
    starts = ("import live", "from instances import")
    found = sorted((ROOT / "tests").glob("test_*.py"))
    chosen = [path for path in found if any(each in path.read_text() for each in starts)]
    return ["--http-server", "granian", *(str(path.relative_to(ROOT)) for path in chosen)]


def names_a_test(argument: str) -> bool:
    return not argument.startswith("-") and (ROOT / argument.partition("::")[0]).exists()


def main(arguments: list[str]) -> int:
    rest = [argument for argument in arguments if argument != "--full"]
    install("test", "-e", ".", *plugins(), "--group", "test", "--group", "lint")
    some = any(names_a_test(argument) for argument in rest)
    checked = 0 if some else run(ROOT / "scripts" / "check")
    if checked:
        print("\nscripts/check failed, see above; the tests run all the same\n", flush=True)
    command = [str(PYTHON), "-m", "pytest", "-o", "cache_dir=.cache/pytest"]
    if "--full" not in arguments and "-m" not in rest:
        command += ["-m", "not slow"]
    if not some:
        # Two at a time, since most wait for processes; the tests of a file share servers.
        command += ["-n", "2", "--dist", "loadfile"]
    failed = run(*command, *([] if some else tests()), *rest)
    if "--full" in arguments and not some:
        failed = run(*command, *on_granian(), *rest) or failed
    return failed or checked


if __name__ == "__main__":
    with workspace():
        try:
            sys.exit(main(sys.argv[1:]))
        except KeyboardInterrupt:
            sys.exit(130)
