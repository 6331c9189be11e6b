"""Files that requests name: never outside of the folders that the operator names."""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from atomserve.errors import SourceRefused, TooLarge
from atomserve.media.beneath import open_beneath, walk_beneath
from atomserve.media.files import REFUSED, SHORT, Folders
from atomserve.media.sources import Sources
from atomserve.settings import MediaSettings

OPENERS = pytest.mark.parametrize("opener", [open_beneath, walk_beneath])
SECRET = b"secret"
MOST = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with files, beside a secret that no path may reach."""
    (tmp_path / "secret").write_bytes(SECRET)
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_bytes(b"plain")
    (folder / "inner" / "file").write_bytes(b"deep")
    return folder


def folders(root: Path, opener: Any = open_beneath) -> Folders:
    return Folders([str(root)], opener)


@OPENERS
@pytest.mark.parametrize(("path", "data"), [("file", b"plain"), ("inner/file", b"deep")])
def test_a_file_below_a_root_is_read(root: Path, opener: Any, path: str, data: bytes) -> None:
    for name in (path, f"{root}/{path}"):
        found = folders(root, opener).read(name, MOST)
        assert found == data
        assert found.readonly


def test_the_first_root_that_has_a_file_gives_it(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "more").write_bytes(b"more")
    both = Folders([str(root), str(other)])
    assert both.read("more", MOST) == b"more"
    assert both.read(f"{other}/more", MOST) == b"more"


def attacks(root: Path) -> dict[str, str]:
    """Return paths that lead outside, or to what is no regular file, by what they are."""
    secret = root.parent / "secret"
    (root / "link").symlink_to(secret)
    (root / "inside").symlink_to(root / "file")
    (root / "up").symlink_to(root.parent)
    (root / "round").symlink_to("round")
    (root / "magic").symlink_to("/proc/self/cwd")
    os.link(secret, root / "hard")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))
    (root / "empty").touch()
    return {
        "parent": "../secret",
        "parent inside": "inner/../file",
        "parent of an inner folder": "inner/../../secret",
        "escaped": "%2e%2e/secret",
        "absolute": str(secret),
        "absolute with the root in front": f"{root}/../secret",
        "the root's name longer": f"{root}x/file",
        "symlink": "link",
        "symlink that stays inside": "inside",
        "symlink to a folder": "up/secret",
        "symlink to itself": "round",
        "magic link": "magic/root",
        "proc": "/proc/self/environ",
        "device": "/dev/zero",
        "hard link": "hard",
        "FIFO": "fifo",
        "socket": "socket",
        "folder": "inner",
        "folder with a slash": "inner/",
        "nothing in it": "empty",
        "root": "",
        "root itself": str(root),
        "root with a slash": f"{root}/",
        "dot": ".",
        "dot inside": "./file",
        "two slashes": "inner//file",
        "NUL": "file\0.png",
        "missing": "missing",
        "below a file": "file/x",
        "long": "a" * 300,
        "very long": "a/" * 100_000,
        "backslash": "..\\secret",
        "surrogate": "\ud800",
    }


@OPENERS
def test_s07_nothing_but_regular_files_below_a_root_is_read(root: Path, opener: Any) -> None:
    for name, path in attacks(root).items():
        with pytest.raises(SourceRefused) as caught:
            folders(root, opener).read(path, MOST)
        # One text for all: it says nothing of what is there.
        assert (caught.value.detail, caught.value.status) == (REFUSED, 400), name


@OPENERS
@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_s07_a_link_that_comes_and_goes_is_never_followed(
    root: Path, opener: Any, swapped: str
) -> None:
    place = root / "place"
    (root / "real").mkdir()
    (root / "real" / "secret").write_bytes(b"inside")
    plain, target, path = (
        (root / "real" / "secret", root.parent / "secret", "place")
        if swapped == "file"
        else (root / "real", root.parent, "place/secret")
    )
    link = root / "link"
    link.symlink_to(target)
    plain.rename(place)
    over = Event()
    aside = root / "aside"

    def swap() -> None:
        while not over.is_set():
            place.rename(aside)
            link.rename(place)
            place.rename(link)
            aside.rename(place)

    thread = Thread(target=swap)
    thread.start()
    found = set()
    try:
        for _ in range(1000):
            try:
                found.add(bytes(folders(root, opener).read(path, MOST)))
            except SourceRefused:
                found.add(b"")
    finally:
        over.set()
        thread.join()
    assert found <= {b"", b"inside"}
    assert folders(root, opener).read(path, MOST) == b"inside"


def test_too_large_a_file_is_refused_before_it_is_read(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLarge, match="at most 1048576 bytes"):
        folders(root).read("large", MOST)
    with pytest.raises(TooLarge):
        folders(root).read_part("large", 0, MOST + 1, MOST)
    assert len(folders(root).read_part("large", 1 << 39, MOST, MOST)) == MOST


@pytest.mark.parametrize(
    ("position", "size"),
    [(0, 6), (5, 1), (6, 1), (2**31, 1), (2**63 - 1, 1), (2**63, 1), (2**64, 1), (4, 2)],
)
def test_s08_a_part_that_is_not_there_is_refused(root: Path, position: int, size: int) -> None:
    with pytest.raises(SourceRefused, match=SHORT):
        folders(root).read_part("file", position, size, MOST)


def test_s08_a_file_that_its_owner_shortens_is_an_error_and_no_signal(root: Path) -> None:
    path = root / "large"
    size = 1 << 20
    path.write_bytes(bytes(size))
    over = Event()

    def shorten() -> None:
        while not over.is_set():
            os.truncate(path, 0)
            os.truncate(path, size)

    thread = Thread(target=shorten)
    thread.start()
    try:
        for _ in range(500):
            try:
                assert len(folders(root).read_part("large", 0, size, size)) == size
            except SourceRefused as exc:
                assert exc.detail in (SHORT, REFUSED)
    finally:
        over.set()
        thread.join()


def test_s08_parts_of_two_files_are_never_mixed(root: Path) -> None:
    size = 1 << 16
    for name, value in (("a", 1), ("b", 2)):
        (root / name).write_bytes(bytes([value]) * size)
    shared = Sources(MediaSettings(roots=(str(root),), mmap=True))
    wrong: list[str] = []

    def read(name: str, value: int) -> None:
        chance = random.Random(name)
        for _ in range(1000):
            position = chance.randrange(size)
            part = {"path": name, "position": position, "size": chance.randint(1, size - position)}
            data = shared.bytes_of({"mmap": part})
            if set(data) != {value} or len(data) != part["size"]:
                wrong.append(name)

    threads = [Thread(target=read, args=each) for each in (("a", 1), ("b", 2)) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["url", "path", "mmap"])
def test_nothing_is_opened_unless_the_operator_allows_it(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    references: dict[str, Any] = {
        "url": "http://127.0.0.1/",
        "path": str(root / "file"),
        "mmap": {"path": str(root / "file"), "position": 0, "size": 1},
    }
    with pytest.raises(SourceRefused, match=f"opens no {name} of a request; expected base64$"):
        Sources().bytes_of({name: references[name]})
    assert Sources().bytes_of({"base64": "AAA="}) == bytes(2)


def test_a_switch_opens_its_own_form_alone(root: Path) -> None:
    def allowed(**settings: Any) -> tuple[str, ...]:
        return Sources(MediaSettings(**settings)).allowed

    assert allowed() == ()
    assert allowed(urls=True) == ("url",)
    assert allowed(roots=(str(root),)) == ("path",)
    assert allowed(roots=(str(root),), mmap=True) == ("path", "mmap")


def test_the_kernel_and_the_walk_open_the_same_file(root: Path) -> None:
    def number(opener: Callable[..., int]) -> int:
        folder = os.open(root, os.O_PATH)
        fd = opener(folder, [b"inner", b"file"])
        try:
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)
            os.close(folder)

    assert number(open_beneath) == number(walk_beneath) == (root / "inner" / "file").stat().st_ino


def test_reading_leaves_no_descriptor_behind(root: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    paths = attacks(root).values()
    before = opened()
    for opener in (open_beneath, walk_beneath):
        for path in ("file", *paths):
            try:
                folders(root, opener).read(path, MOST)
            except SourceRefused:
                continue
    assert opened() == before
