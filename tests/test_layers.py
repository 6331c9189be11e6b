"""Modules import downwards only, and the supervisor stays small."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "atomserve"

# The table of docs/architecture.md; a folder stands for all of its modules.
LAYERS = (
    "errors exits heap specs context wrapper units lifeline",
    "fields sealed",
    "settings schemas telemetry class_checks",
    "signature plugins configuration guard media",
    "loading engine",
    "codecs transport control registration",
    "backends",
    "surfaces",
    "orders hosting",
    "app compat",
    "server supervisor",
    "background",
    "testing",
    "cli",
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}
# The package's own door loads each public name from its home; `python -m atomserve` is the cli's.
DOORS = {"__init__", "__main__"}


def module_of(path: Path) -> str:
    """Return the name in the table: the first part below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the table's name of each atomserve module that ``path`` imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from top(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            if node.module == "atomserve":
                yield from ((node.lineno, home(alias.name)) for alias in node.names)
            else:
                yield from top(node.lineno, node.module)


def top(line: int, dotted: str) -> Iterator[tuple[int, str]]:
    first, _, rest = dotted.partition(".")
    if first == "atomserve":
        yield line, rest.partition(".")[0] or "__init__"


def home(name: str) -> str:
    """Return the module that ``from atomserve import name`` reaches."""
    if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir():
        return name
    from atomserve import _HOMES

    return _HOMES.get(name, "__init__")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", modules(), ids=names(modules()))
def test_every_module_has_a_layer(path: Path) -> None:
    name = module_of(path)
    assert name in LAYER or name in DOORS, f"{name} is in no layer: add it to the table"


@pytest.mark.parametrize("path", modules(), ids=names(modules()))
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    own = module_of(path)
    if own in DOORS:
        return
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for line, other in imports(path)
        if other not in (own, "__init__") and LAYER[other] >= LAYER[own]
    ]
    assert not wrong


@pytest.mark.parametrize("path", modules(), ids=names(modules()))
def test_every_import_is_absolute(path: Path) -> None:
    list(imports(path))


def test_no_two_modules_need_each_other() -> None:
    needs = {dotted(path): set(modules_in(path)) for path in modules()}
    sorter = graphlib.TopologicalSorter(needs)
    sorter.prepare()


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_in(path: Path) -> Iterator[str]:
    """Yield each module of ours that ``path`` imports when it is imported itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("atomserve."):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if (ROOT / (whole.replace(".", "/") + ".py")).exists() else node.module


def test_the_supervisor_loads_no_numpy_no_web_framework_and_no_server() -> None:
    code = (
        "import atomserve.supervisor.supervisor, json, sys; print(json.dumps(sorted(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(found.stdout)}
    assert not loaded & {"numpy", "starlette", "hypercorn", "PIL", "typer", "h2", "httpx2"}
