"""What a worker says of its model before it loads, in a real instance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import live

EXAMPLES = """
from atomserve import Blob, Example, Wrapper


class It(Wrapper):
    examples = [
        Example(inputs={"data": b"small"}, output=5),
        Example(inputs={"data": bytes(900_000)}, output=900_000),
        Example(inputs={"data": b"the last"}, output=8),
    ]

    def predict(self, data: Blob) -> int:
        return len(data)
"""
SCHEMA = """
from typing import Literal

from atomserve import Wrapper


class It(Wrapper):
    def predict(self, word: Literal[WORDS]) -> int:
        return len(word)
"""


def shown(server: live.Live) -> list[Any]:
    with server.client() as client:
        operation = client.get("/openapi.json").json()["paths"]["/v1/models/it/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    return [example["value"]["data"] for example in examples.values()]


def test_an_example_too_large_to_be_shown_is_run_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(EXAMPLES)
    with live.running(tmp_path, "--plugins", "it=./it.py:It") as server:
        server.await_ready()
        left_out = server.await_record("examples.left_out", model="it")
        assert left_out["numbers"] == [2]
        assert shown(server) == ["c21hbGw=", "dGhlIGxhc3Q="]
        assert not server.records("worker.died")


def test_a_signature_too_large_to_be_told_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    words = ", ".join(f"'{number:0100}'" for number in range(11_000))
    (tmp_path / "it.py").write_text(SCHEMA.replace("WORDS", words))
    with live.running(tmp_path, "--plugins", "it=./it.py:It") as server:
        assert server.wait() == 2
        assert server.await_line(lambda line: "its signature is too large" in line)


def test_settings_too_large_to_be_told_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(EXAMPLES)
    toml = f"[models.it.config]\nwords = '{'x' * 600_000}'\n"
    with live.running(tmp_path, "--plugins", "it=./it.py:It", toml=toml) as server:
        assert server.wait() == 2
        assert server.await_line(lambda line: "the settings have 6" in line)
