import gzip
import io
import os
import subprocess
import sys
import wave
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import magika
import msgspec
import pytest
from atomserve_filetype import Answer, FileType, FileTypeConfig
from atomserve_filetype.engine import Engine
from atomserve_filetype.files import EDGE, as_file
from atomserve_filetype.samples import JSON, PDF, PICTURE, PYTHON

from atomserve.signature import read_contract
from atomserve.testing import Client, serve


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("menu.txt", "oolong " * 40)
        archive.writestr("hours.txt", "nine to nine " * 20)
    return file.getvalue()


def sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as clip:
        clip.setparams((1, 2, 8000, 0, "NONE", ""))
        clip.writeframes(b"\0\1" * 400)
    return file.getvalue()


KINDS = {
    "png": PICTURE,
    "python": PYTHON,
    "json": JSON,
    "pdf": PDF,
    "zip": zipped(),
    "wav": sound(),
    "gzip": gzip.compress(PYTHON, mtime=0),
    "elf": Path(sys.executable).resolve().read_bytes()[:100_000],
    "csv": b"name,price,count\ngreen tea,3.50,12\nblack tea,2.80,40\noolong,4.20,7\nsencha,5,3\n",
    "xml": b'<?xml version="1.0" encoding="UTF-8"?>\n<teas>\n  <tea name="oolong"/>\n</teas>\n',
    "shell": b'#!/bin/bash\nset -eu\nfor name in "$@"; do\n  echo "hello $name"\ndone\n',
    "markdown": b"# Tea\n\nHow to brew it:\n\n- warm the pot\n- add **two** spoons\n\n[Tea](a)\n",
    "c": b'#include <stdio.h>\n\nint main(void) {\n    printf("hello\\n");\n    return 0;\n}\n',
    "txt": b"The tea house opens at nine and closes at half past nine, every day of the week.\n",
}


@pytest.fixture(scope="module")
def filetype() -> FileType:
    wrapper = FileType()
    wrapper.load(FileTypeConfig())
    return wrapper


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    with serve(FileType, name="filetype") as client:
        yield client


def views(*blobs: bytes) -> list[memoryview]:
    return [memoryview(blob) for blob in blobs]


def close(one: Answer, other: Answer) -> bool:
    same = msgspec.structs.replace(one, score=other.score) == other
    return same and one.score == pytest.approx(other.score, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_names_the_kind_of_real_files(server: Client, kind: str) -> None:
    assert server.call("filetype", input=KINDS[kind])["label"] == kind


def test_a_raw_body_is_the_file(server: Client) -> None:
    answer = server.post("/v1/models/filetype/predict", content=PICTURE).json()
    assert 0.9 < answer.pop("score") <= 1
    assert answer == {
        "label": "png",
        "mime_type": "image/png",
        "group": "image",
        "description": "PNG image",
        "is_text": False,
    }


def test_requests_at_once_get_each_their_own_answer(server: Client) -> None:
    kinds = list(KINDS) * 3
    with ThreadPoolExecutor(14) as threads:
        calls = [threads.submit(server.call, "filetype", input=KINDS[kind]) for kind in kinds]
    assert [call.result()["label"] for call in calls] == kinds


def test_a_batch_answers_as_single_calls_do(filetype: FileType) -> None:
    together = filetype.predict_batch(views(*KINDS.values(), b"", b"ab", PICTURE))
    alone = [filetype.predict_batch([blob])[0] for blob in views(*KINDS.values(), b"", b"ab")]
    assert len(together) == len(alone) + 1
    assert all(map(close, together, [*alone, alone[0]]))


def test_the_whole_batch_is_one_run_of_the_model(filetype: FileType) -> None:
    session = Counting(filetype._engine._onnx_session)
    filetype._engine._onnx_session = session
    try:
        filetype.predict_batch(views(*KINDS.values()))
    finally:
        filetype._engine._onnx_session = session.real
    assert session.sizes == [len(KINDS)]


def test_an_empty_blob_is_a_kind_of_file_too(server: Client, filetype: FileType) -> None:
    empty = Answer("empty", "inode/x-empty", "inode", "Empty file", 1.0, False)
    assert filetype.predict_batch(views(b"", PYTHON))[0] == empty
    assert server.call("filetype", input=b"") == msgspec.to_builtins(empty)


def test_a_few_bytes_are_text_or_unknown(filetype: FileType) -> None:
    answers = filetype.predict_batch(views(b"tea", b"\xff\xfe\x00"))
    assert [answer.label for answer in answers] == ["txt", "unknown"]


@pytest.mark.parametrize("length", [1, 4096, EDGE - 1, EDGE, EDGE + 1, 2 * EDGE, 3 * EDGE + 7])
def test_a_file_has_the_length_and_both_ends_of_its_blob(length: int) -> None:
    blob = os.urandom(length)
    with as_file(memoryview(blob)) as path:
        found = Path(path).read_bytes()
    assert len(found) == length
    assert found[:EDGE] == blob[:EDGE]
    assert found[-EDGE:] == blob[-EDGE:]
    assert not Path(path).exists()


def test_a_long_file_is_known_by_its_ends(filetype: FileType) -> None:
    blob = b"import os\n\nprint(os.getcwd())\n" * 40_000
    (answer,) = filetype.predict_batch(views(blob))
    found = magika.Magika().identify_bytes(blob)
    assert answer.label == str(found.output.label) == "python"
    assert answer.score == pytest.approx(found.score, abs=1e-3)


def test_a_batch_leaves_no_file_open(filetype: FileType) -> None:
    before = len(os.listdir("/proc/self/fd"))
    filetype.predict_batch(views(PICTURE, PYTHON))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("threads", [1, 3])
def test_onnxruntime_gets_as_many_threads_as_are_configured(threads: int) -> None:
    options = Engine(threads)._onnx_session.get_session_options()
    assert options.intra_op_num_threads == threads


@pytest.mark.parametrize("bad", [{"threads": 0}, {"thread": 2}])
def test_a_mistake_in_the_configuration_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, FileTypeConfig)


def test_the_contract_is_a_batch_of_raw_bodies() -> None:
    contract = read_contract(FileType)
    assert contract.config is FileTypeConfig
    assert contract.signature.takes == "batch"
    assert contract.signature.binary_input is contract.signature.inputs[0]


class Counting:
    """An onnxruntime session that notes how many inputs each run takes."""

    def __init__(self, real) -> None:
        self.real = real
        self.sizes: list[int] = []

    def run(self, names, inputs):
        self.sizes.append(len(inputs["bytes"]))
        return self.real.run(names, inputs)


QUIET = """
import sys
def watch(event, arguments):
    network = event in {"socket.connect", "socket.sendto", "socket.getaddrinfo"}
    # Files in memory are written to by their number, not by a path.
    path = event == "open" and isinstance(arguments[0], (str, bytes))
    if network or (path and set(arguments[1] or "") & set("wax+")):
        raise SystemExit(f"{event} {arguments}")
from atomserve_filetype import FileType, FileTypeConfig
heavy = {"magika", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
sys.addaudithook(watch)
wrapper = FileType()
wrapper.load(FileTypeConfig())
wrapper.predict_batch([memoryview(b"hello to all of you")])
"""


def test_loading_uses_no_network_writes_no_file_and_says_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-B", "-c", QUIET], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
