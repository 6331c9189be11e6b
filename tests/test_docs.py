"""The documentation is complete, and every command in it does what it says.

A page's ``console`` blocks run in order, in one folder of their own. A line after ``$ `` is a
command, lines after ``> `` continue it, and what follows is its output, where ``...`` stands
for anything. ``$ atomserve run`` starts a server that the rest of the page talks to: it listens
on a free port, which takes the place of 8000 everywhere. A comment before a block changes that:

- ``<!-- file: NAME -->`` writes the block to a file;
- ``<!-- not run: REASON -->`` leaves it out, and the summary of the tests says why.
"""

import ast
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from conftest import require

import atomserve

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted((ROOT / "atomserve").rglob("*.py"))
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>file|not run): (?P<what>.+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
PORT = "8000"
PATIENCE = 60.0


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    mark: str
    what: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found["mark"] or "",
            found["what"] or "",
            found["language"],
            re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
        )
        for found in BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]


@dataclass(frozen=True)
class Command:
    line: str
    output: str


def commands(block: Block) -> list[Command]:
    found = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        first, _, rest = part.partition("\n")
        while rest.startswith("> "):
            more, _, rest = rest[2:].partition("\n")
            first += "\n" + more
        found.append(Command(first, rest))
    return found


def matches(expected: str, actual: str) -> bool:
    """Say whether ``actual`` is ``expected``, in which ``...`` stands for anything."""
    pattern = re.escape(tidy(expected)).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, tidy(actual), re.DOTALL) is not None


def tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Shell:
    """Runs one page's commands in a folder, with the server that they start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[str] | None = None
        self.port = PORT

    def environment(self) -> dict[str, str]:
        tools = Path(sys.executable).parent
        return os.environ | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(self.folder)]),
            "ATOMSERVE_PORT": self.port,
            "ATOMSERVE_DRAIN_DELAY": "0",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }

    def run(self, command: Command) -> None:
        if command.line.startswith("atomserve run") and "error: " not in command.output:
            output = self.serve(command.line)
        else:
            output = self.call(command.line.replace(f":{PORT}", f":{self.port}"))
        output = output.replace(f":{self.port}", f":{PORT}")
        assert not command.output.strip() or matches(command.output, output), (
            f"$ {command.line}\nexpected:\n{command.output}\ngot:\n{output}"
        )

    def call(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        # A command that is shown to fail says so on its one line.
        assert done.returncode == 0 or "error: " in done.stdout, f"$ {line}\n{done.stdout}"
        return done.stdout

    def serve(self, line: str) -> str:
        self.close()
        self.port = str(free_port())
        printed = self.folder / ".server.out"
        with printed.open("w") as out:
            self.server = subprocess.Popen(
                shlex.split(line),
                cwd=self.folder,
                env=self.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        end = time.monotonic() + PATIENCE
        while not self.ready():
            text = printed.read_text()
            assert self.server.poll() is None, f"$ {line}\n{text}"
            assert time.monotonic() < end, f"$ {line}: not ready\n{text}"
            time.sleep(0.05)
        return printed.read_text()

    def ready(self) -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def close(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)
            assert self.server.wait(PATIENCE) == 0
            self.server = None


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_do_what_it_says(page: Path, shell: Shell) -> None:
    for block in blocks(page):
        if block.mark == "file":
            target = shell.folder / block.what
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.language == "console" and not block.mark:
            for command in commands(block):
                if command.line.startswith("curl"):
                    require("curl")
                shell.run(command)


@pytest.mark.parametrize("block", [block for block in ALL if block.mark == "not run"], ids=str)
def test_a_command_that_cannot_run_here(block: Block) -> None:
    pytest.skip(block.what)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_written_so_that_they_are_run(page: Path) -> None:
    for block in blocks(page):
        assert block.language not in {"bash", "sh", "shell"}, f"{block}: write a console block"
        if block.language == "console":
            assert commands(block), f"{block}: a console block without a `$ ` line"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(BLOCK, "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target} does not exist"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for_in_one_sentence(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py" and not text.strip():
        return
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    assert first.endswith("."), f"{path.name}: a docstring of one sentence"
    assert len(re.findall(r"\.(?:\s|$)", first)) == 1, f"{path.name}: {first!r} is not one sentence"


@pytest.mark.parametrize("name", atomserve.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"`(?:atomserve\.)?{name}\b", pages), f"{name} is on no page of docs/"


@pytest.mark.parametrize("name", atomserve.__all__)
def test_every_public_name_has_a_docstring(name: str) -> None:
    value = getattr(atomserve, name)
    if getattr(value, "__metadata__", ()):  # an alias is as clear as what it adds
        value = type(value.__metadata__[0])
    assert value.__doc__
    assert "\n" not in value.__doc__.strip().partition(". ")[0].partition("\n\n")[0]
