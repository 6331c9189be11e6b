"""A plugin that is written wrongly: one line that names it and what was expected, exit code 2."""

import subprocess
from pathlib import Path

import live
import pytest

START = """
from collections.abc import Iterator
from typing import Annotated

import msgspec
import numpy as np

from atomserve import Example, Tensor, Wrapper


class Thing:
    pass


"""
METHOD = "    def predict(self, x: int) -> int: ...\n"
BATCH = "    def predict_batch(self, requests: list[int]) -> list[int]: ...\n"
WRONG = [
    (
        "    pass",
        "Wrong.predict: has none of them; expected exactly one of predict, predict_batch, session",
    ),
    (
        f"{METHOD}    def session(self, inputs: Iterator[int]) -> Iterator[int]: ...",
        "Wrong.predict: has predict and session; expected exactly one of predict, predict_batch, "
        "session",
    ),
    (
        "    def predict(self, x) -> int: ...",
        "Wrong.predict(x): has no annotation; expected one, for instance `x: float`",
    ),
    (
        "    def predict(self, *xs: int) -> int: ...",
        "Wrong.predict(*xs: int): inputs must be named; expected parameters by name",
    ),
    (
        "    def predict(self, x: 'Nothing') -> int: ...",
        "Wrong.predict: its annotations cannot be resolved: name 'Nothing' is not defined",
    ),
    (
        "    def predict(self, x: int, y: Thing) -> int: ...",
        "Wrong.predict(y): a type has no JSON form: Thing; expected a field, a plain type, a "
        "msgspec.Struct or a dataclass",
    ),
    (
        "    def predict(self, x: int) -> Thing: ...",
        "Wrong.predict return: a type has no JSON form: Thing; expected a field, a plain type, a "
        "msgspec.Struct or a dataclass",
    ),
    (
        "    def predict(self, x: np.ndarray) -> int: ...",
        "Wrong.predict(x): a bare np.ndarray says neither dtype nor shape; write "
        'Annotated[np.ndarray, Tensor("float32", (-1, 3))]; expected a field or a type that '
        "msgspec knows",
    ),
    (
        "    def predict(self, x: int) -> int:\n        yield x",
        "Wrong.predict: yields; expected the return annotation `Iterator[R]`",
    ),
    (
        "    def predict(self, x: int = 'one') -> int: ...",
        "Wrong.predict(x): its default does not fit: Expected `int`, got `str`",
    ),
    (
        "    @staticmethod\n    def predict(x: int) -> int: ...",
        "Wrong.predict: is no method of an instance; expected `self` first",
    ),
    (
        "    def predict() -> int: ...",
        "Wrong.predict: takes nothing; expected `self` first",
    ),
    (
        "    async def session(self, inputs: Iterator[int]) -> Iterator[int]: ...",
        "Wrong.session: is async; expected a plain method",
    ),
    (
        "    def session(self, inputs: int) -> Iterator[int]: ...",
        "Wrong.session: expected exactly one parameter, `inputs: Iterator[I]`",
    ),
    (
        "    def predict_batch(self, a: int, b: int) -> list[int]: ...",
        "Wrong.predict_batch: expected exactly one parameter, `requests: list[R]`",
    ),
    (
        f"    batch_key = 'x'\n{METHOD}",
        "Wrong.batch_key: is for predict_batch, not for predict",
    ),
    (
        f"    batch_key = 'y'\n{BATCH}",
        "Wrong.batch_key: 'y' is no scalar input; expected of: input",
    ),
    (
        f"    batch_cost = 'y'\n{BATCH}",
        "Wrong.batch_cost: 'y' is no scalar input; expected of: bytes, input",
    ),
    (
        f"    stack = 'up'\n{BATCH}",
        'Wrong.stack: is \'up\'; expected False, True, "group" or "pad"',
    ),
    (
        f"    stack = True\n{BATCH}",
        "Wrong.stack: no input is a Tensor: there is nothing to stack",
    ),
    (
        "    def predict_batch(self, requests: list[int]) -> int: ...",
        "Wrong.predict_batch: expected the return annotation `list[R]`",
    ),
    (
        f"{METHOD}    def __init__(self, path): ...",
        "Wrong.__init__: wants arguments; expected none: `load` is given the configuration",
    ),
    (f"{METHOD}    def load(self): ...", "Wrong.load: expected `load(self, config)`"),
    (
        f"{METHOD}    def load(self, config: Thing): ...",
        "Wrong.load: Thing cannot be a configuration; expected a msgspec.Struct, a dataclass or "
        "dict",
    ),
    (f"{METHOD}    def unload(self, why): ...", "Wrong.unload: expected `unload(self)`"),
    (
        f"{METHOD}    slots = 'many'",
        "Wrong: class attributes: Expected `int`, got `str` - at `$.slots`",
    ),
    (f"{METHOD}    slots = 0", "Wrong: class attributes: Expected `int` >= 1 - at `$.slots`"),
    (
        f"{METHOD}    timeout = 0",
        "Wrong: class attributes: Expected `float` > 0.0 - at `$.timeout`",
    ),
    (
        f"{METHOD}    executor = 'fiber'",
        "Wrong: class attributes: Invalid enum value 'fiber' - at `$.executor`",
    ),
    (
        f"{METHOD}    examples = [{{'x': 1}}]",
        "Wrong.examples: number 1 is of type dict; expected Example(inputs={...})",
    ),
    (
        f"{METHOD}    examples = [Example(inputs={{'x': 1, 'y': 2}})]",
        "Wrong.examples: number 1 has 'y'; expected of: x",
    ),
    (
        f"{METHOD}    examples = [Example(inputs={{}})]",
        "Wrong.examples: number 1 lacks 'x', which is required",
    ),
]


def refused(folder: Path, text: str, *flags: str) -> str:
    """Return the line that `atomserve run` leaves with."""
    (folder / "model.py").write_text(text)
    done = subprocess.run(
        live.command("run", "--port", "0", "--plugins", "./model.py", *flags),
        cwd=folder,
        env=live.environment(),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    return line.removeprefix("atomserve: error: ")


@pytest.mark.parametrize(("body", "line"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_class_is_one_line_and_exit_code_2(tmp_path: Path, body: str, line: str) -> None:
    text = f"{START}class Wrong(Wrapper):\n{body}\n"
    assert refused(tmp_path, text) == f"plugin 'wrong': {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "class Wrong(\n",
            "cannot be imported: SyntaxError: '(' was never closed (model.py, line 1)",
        ),
        (
            "import nothing_of_this_name\n",
            "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name' "
            "(model.py, line 1)",
        ),
        ("raise SystemExit('gone')\n", "cannot be imported: SystemExit: gone (model.py, line 1)"),
        ("x = 1\n", "expected one subclass of Wrapper in the file, found none; write one"),
        (
            f"{START}class A(Wrapper):\n{METHOD}\nclass B(A): ...\n",
            "expected one subclass of Wrapper in the file, found A and B; name one: file.py:Class",
        ),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(tmp_path: Path, text: str, line: str) -> None:
    assert refused(tmp_path, text) == f"./model.py: {line}"


CONFIGURED = f"""{START}
import msgspec


class Sized(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 1


class Wrong(Wrapper):
    def load(self, config: Sized) -> None:
        pass

{METHOD}
"""


@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("seize = 2", "Object contains unknown field `seize`"),
        ('size = "large"', "Expected `int`, got `str` - at `$.size`"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line_and_exit_code_2(
    tmp_path: Path, executor: str, table: str, line: str
) -> None:
    (tmp_path / "atomserve.toml").write_text(f"[models.wrong.config]\n{table}\n")
    assert refused(tmp_path, CONFIGURED, "--executor", executor) == f"models.wrong.config: {line}"
