"""The virtual environment and caches that the scripts share; all of it lies inside the clone."""

from __future__ import annotations

import compileall
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
PYTHON = VENV / "bin" / "python"
CODE = ("atomserve", "plugins", "tests")
STRAY = ("PYTHONHOME", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET")


@contextmanager
def workspace() -> Iterator[None]:
    """Let this process and its children write into the clone only, and end in order on a signal.

    Temporary files stand outside of the clone while the script runs, and not after it: a unix
    socket's path may have 107 bytes at most, and the clone's may have any number.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    for name in STRAY:
        os.environ.pop(name, None)
    os.environ |= {
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(VENV),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "XDG_CACHE_HOME": str(CACHE),
        "MYPY_CACHE_DIR": str(CACHE / "mypy"),
        "RUFF_CACHE_DIR": str(CACHE / "ruff"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(CACHE / "hypothesis"),
        "COVERAGE_FILE": str(CACHE / "coverage"),
        "npm_config_cache": str(CACHE / "npm"),
    }
    with tempfile.TemporaryDirectory(prefix="atomserve-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        yield


def run(*command: str | Path) -> int:
    """Run ``command`` from the clone's root; it does not outlive this call."""
    with subprocess.Popen([str(part) for part in command], cwd=ROOT) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def install(name: str, *arguments: str) -> None:
    """Pip install ``arguments`` into .venv, unless ``name`` says that this is done already."""
    stamp = VENV / f"installed-{name}"
    wanted = fingerprint(arguments)
    if not stamp.exists() or stamp.read_text() != wanted or not works():
        print(f"installing into .venv: {' '.join(arguments)}", file=sys.stderr, flush=True)
        if not works():
            venv.create(VENV, with_pip=True, clear=True)
        pip("pip>=25.1")  # the first that knows --group
        pip(*arguments)
        compile_all(VENV)
        stamp.write_text(wanted)
    for folder in CODE:
        compile_all(ROOT / folder)


def fingerprint(arguments: tuple[str, ...]) -> str:
    """Return what changes whenever the installation has to be done again."""
    digest = hashlib.sha256(repr((sys.version, str(ROOT), arguments)).encode())
    for path in sorted([ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def works() -> bool:
    """Say whether there is an environment that this Python made, in this place."""
    if not PYTHON.exists():
        return False
    code = "import pip, sys; print(sys.version, sys.prefix)"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == f"{sys.version} {VENV}".strip()


def pip(*arguments: str) -> None:
    if run(PYTHON, "-m", "pip", "install", "--quiet", "--upgrade", *arguments):
        sys.exit(f"scripts: error: pip install {' '.join(arguments)} failed")


def compile_all(folder: Path) -> None:
    # Libraries ship templates, and files for other versions of Python: not all of them compile.
    compileall.compile_dir(folder, quiet=2, workers=os.cpu_count() or 1)
