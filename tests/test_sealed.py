"""Sealed files: read back as they were, or not at all."""

from __future__ import annotations

import base64
import io
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomserve import sealed
from atomserve.cli import main
from atomserve.errors import BadSeal, ConfigError
from atomserve.sealed.form import HEADER, MAGIC, TAG

KEY = bytes(range(100, 132))
LOG2 = 10
CHUNK = 1 << LOG2
STEP = CHUNK + TAG


def bytes_of(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sealed")


def seal(folder: Path, plain: bytes, key: bytes = KEY) -> Path:
    source, target = folder / "plain", folder / "plain.sealed"
    source.write_bytes(plain)
    sealed.seal(source, target, key, log2_chunk=LOG2)
    return target


def altered(folder: Path, content: bytes) -> Path:
    target = folder / "altered.sealed"
    target.write_bytes(content)
    return target


def refusal(folder: Path, content: bytes, key: bytes = KEY) -> str:
    """Return what reading all says; what was read before must be how the plain text begins."""
    plain = (folder / "plain").read_bytes()
    read = b""
    with (
        pytest.raises(BadSeal) as caught,
        sealed.open(altered(folder, content), key) as file,
    ):
        while piece := file.read1(100):
            read += piece
            assert plain.startswith(read)
    target = folder / "unsealed"
    with pytest.raises(BadSeal):
        sealed.unseal(folder / "altered.sealed", target, key)
    assert {path.name for path in folder.iterdir()} == {"plain", "plain.sealed", "altered.sealed"}
    return str(caught.value)


LENGTHS = st.one_of(
    st.integers(0, 4 * CHUNK), st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
)


@given(LENGTHS)
@settings(max_examples=25, deadline=None)
def test_what_was_sealed_is_read_back(folder: Path, length: int) -> None:
    target = seal(folder, bytes_of(length))
    with sealed.open(target, KEY) as file:
        assert file.read() == bytes_of(length)
        assert file.read() == b""
    chunks = max(1, -(-length // CHUNK))
    assert target.stat().st_size == HEADER.size + length + chunks * TAG
    sealed.unseal(target, folder / "again", KEY)
    assert (folder / "again").read_bytes() == bytes_of(length)
    (folder / "again").unlink()


@given(
    LENGTHS,
    st.lists(
        st.tuples(
            st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]),
            st.integers(-2 * CHUNK, 5 * CHUNK),
            st.integers(0, 3 * CHUNK),
        ),
        max_size=12,
    ),
)
@settings(max_examples=40, deadline=None)
def test_it_is_read_anywhere_as_a_plain_file_is(
    folder: Path, length: int, steps: list[tuple[int, int, int]]
) -> None:
    target = seal(folder, bytes_of(length))
    with sealed.open(target, KEY) as file, io.BytesIO(bytes_of(length)) as plain:
        for whence, offset, size in steps:
            start = {0: 0, 1: plain.tell(), 2: length}[whence]
            place = max(start + offset, 0)
            assert file.seek(place - start, whence) == plain.seek(place)
            assert file.read(size) == plain.read(size)
            assert file.tell() == plain.tell()


@given(st.integers(0, 3 * CHUNK), st.data())
@settings(max_examples=50, deadline=None)
def test_no_flipped_bit_is_overlooked(folder: Path, length: int, data: st.DataObject) -> None:
    content = bytearray(seal(folder, bytes_of(length)).read_bytes())
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    refusal(folder, bytes(content))


@given(st.integers(0, 3 * CHUNK), st.data())
@settings(max_examples=40, deadline=None)
def test_a_file_that_was_cut_off_does_not_open(
    folder: Path, length: int, data: st.DataObject
) -> None:
    content = seal(folder, bytes_of(length)).read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(BadSeal):
        sealed.open(altered(folder, content[:cut]), KEY)


def test_a_file_that_was_cut_off_between_chunks_is_known_as_such(folder: Path) -> None:
    content = seal(folder, bytes_of(3 * CHUNK)).read_bytes()
    assert "cut off" in refusal(folder, content[: HEADER.size + 2 * STEP])
    assert "cut off" in refusal(folder, content[: HEADER.size])


@given(st.permutations(range(4)).filter(lambda order: order != [0, 1, 2, 3]))
@settings(max_examples=12, deadline=None)
def test_no_order_but_the_right_one_is_read(folder: Path, order: list[int]) -> None:
    content = seal(folder, bytes_of(4 * CHUNK)).read_bytes()
    chunks = [content[start : start + STEP] for start in range(HEADER.size, len(content), STEP)]
    refusal(folder, content[: HEADER.size] + b"".join(chunks[place] for place in order))


def test_chunks_left_out_doubled_or_appended_are_found(folder: Path) -> None:
    content = seal(folder, bytes_of(4 * CHUNK)).read_bytes()
    first, rest = content[: HEADER.size + STEP], content[HEADER.size + STEP :]
    assert "chunk" in refusal(folder, first + rest[STEP:])
    assert "chunk" in refusal(folder, first + first[HEADER.size :] + rest)
    assert "chunk" in refusal(folder, content + rest[-STEP:])
    assert "something was appended" in refusal(folder, content + b"x")


def test_a_chunk_of_another_file_with_the_same_key_is_found(folder: Path) -> None:
    other = seal(folder, bytes_of(3 * CHUNK)).read_bytes()
    content = seal(folder, bytes_of(3 * CHUNK)).read_bytes()
    assert content != other
    start = HEADER.size + STEP
    mixed = content[:start] + other[start : start + STEP] + content[start + STEP :]
    assert "chunk 1 was altered" in refusal(folder, mixed)


def test_another_key_reads_nothing(folder: Path) -> None:
    content = seal(folder, b"secret").read_bytes()
    assert "another key" in refusal(folder, content, bytes(32))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a sealed file"),
        (b"PK\x03\x04" + bytes(200), "not a sealed file"),
        (MAGIC + b"\x09\x12" + bytes(100), "does not know"),
        (MAGIC + b"\x01\x3f" + bytes(100), "does not know"),
    ],
)
def test_another_kind_of_file_is_told_apart(folder: Path, content: bytes, said: str) -> None:
    seal(folder, b"secret")
    assert said in refusal(folder, content)


def test_libraries_read_it_as_any_binary_file(folder: Path, tmp_path: Path) -> None:
    array = np.arange(3 * CHUNK, dtype=np.float32).reshape(3, -1)
    held = io.BytesIO()
    np.savez(held, first=array, second=array + 1)
    with sealed.open(seal(folder, held.getvalue()), KEY) as file, np.load(file) as loaded:
        assert np.array_equal(loaded["second"], array + 1)
    held = io.BytesIO()
    np.save(held, array)
    with sealed.open(seal(folder, held.getvalue()), KEY) as file:
        assert np.array_equal(np.load(file), array)
    with sealed.open(seal(folder, b"one\ntwo\n" * CHUNK), KEY) as file:
        assert sum(1 for line in file if line == b"two\n") == CHUNK


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    size = 24 * 1024 * 1024
    source, target = tmp_path / "plain", tmp_path / "sealed"
    source.write_bytes(bytes(size))
    buffer = bytearray(1024 * 1024)
    tracemalloc.start()
    try:
        sealed.seal(source, target, KEY)
        with sealed.open(target, KEY) as file:
            assert sum(iter(lambda: file.readinto(buffer), 0)) == size
        sealed.unseal(target, tmp_path / "again", KEY)
        assert tracemalloc.get_traced_memory()[1] < 3 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_what_is_unsealed_is_for_its_owner_alone(tmp_path: Path) -> None:
    target = seal(tmp_path, b"secret")
    target.chmod(0o644)
    sealed.unseal(target, tmp_path / "again", KEY)
    assert stat.S_IMODE((tmp_path / "again").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "held",
    [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n", base64.b64encode(KEY) + b"\n"],
)
def test_a_key_is_32_bytes_in_any_of_three_forms(tmp_path: Path, held: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(held)
    assert sealed.key_from_file(file) == KEY
    if held != KEY:
        assert sealed.key_from_variable("K", {"K": held.decode()}) == KEY


@pytest.mark.parametrize(
    "held", [b"", b"hunter2", KEY[:31], KEY + b"x", b"ab" * 16, b"ab" * 31, base64.b64encode(b"x")]
)
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, held: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(held)
    with pytest.raises(ConfigError, match="expected a key of 32 bytes") as caught:
        sealed.key_from_file(file)
    assert "hunter2" not in str(caught.value)
    if len(held) != 32:
        with pytest.raises(ConfigError, match="32 bytes"):
            sealed.open(file, held)


class Said(NamedTuple):
    code: object
    stdout: str
    stderr: str


@pytest.fixture
def atomserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes(b"weights")
    (tmp_path / "key").write_bytes(KEY)

    def call(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        return Said(caught.value.code, *capfd.readouterr())

    return call


def test_the_command_line_seals_and_unseals(
    tmp_path: Path, atomserve: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = atomserve("seal", "model", "--key-file", "key")
    assert (done.code, done.stderr) == (0, "")
    assert b"weights" not in (tmp_path / "model.sealed").read_bytes()
    again = atomserve("unseal", "model.sealed", "--key-file", "key")
    assert again.code == 2
    assert "is there already" in again.stderr
    (tmp_path / "model").unlink()
    monkeypatch.setenv("MODEL_KEY", KEY.hex())
    done = atomserve("unseal", "model.sealed", "--key-variable", "MODEL_KEY")
    assert (done.code, done.stderr) == (0, "")
    assert (tmp_path / "model").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seal", "model"], "say where the key is"),
        (["seal", "model", "--key-file", "key", "--key-variable", "K"], "say where the key is"),
        (["seal", "absent", "--key-file", "key"], "absent: No such file"),
        (["seal", "model", "--key-file", "absent"], "the key cannot be read"),
        (["seal", "model", "--key-variable", "ABSENT"], "it is not set"),
        (["unseal", "model", "--key-file", "key"], "does not end with .sealed"),
        (["unseal", "model", "--key-file", "key", "-o", "out"], "not a sealed file"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, atomserve: Callable[..., Said], arguments: list[str], said: str
) -> None:
    done = atomserve(*arguments)
    assert done.code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"model", "key"}


def test_without_its_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from atomserve import sealed, errors\n"
        "try: sealed.seal('/dev/null', '/dev/null', bytes(32))\n"
        "except errors.MissingExtra as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'atomserve[sealed]'" in done.stdout
