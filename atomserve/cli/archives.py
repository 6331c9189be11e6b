"""Archives that are the same, byte for byte, whenever and wherever the same files are packed."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

from atomserve.errors import ConfigError

LEFT_OUT = frozenset(
    [
        "__pycache__",
        ".cache",
        ".DS_Store",
        ".git",
        ".hg",
        ".idea",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".svn",
        ".venv",
        ".vscode",
    ]
)
"""Names of files and folders that are made by tools, or are a person's own."""
ENDINGS = (".log", ".pyc", ".pyo", ".swp", "~")


def files_of(folder: Path) -> list[Path]:
    """Return the files below ``folder`` that belong to a project, by name.

    Raises `ConfigError` for a link that leads out of the folder.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _left_out(Path(place) / name)]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*names, *links):
            path = Path(place) / name
            if name in LEFT_OUT or name.endswith(ENDINGS):
                continue
            if path.is_symlink() and not _stays(path, folder):
                raise ConfigError(f"{path}: is a link that leads out of {folder}")
            if path.is_symlink() or path.is_file():
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def write_archive(target: Path, folder: Path, files: Iterable[Path]) -> None:
    """Write ``files`` to a tar.gz, by their paths in ``folder`` and without times or owners.

    Whatever was at ``target`` is replaced at once, or stays if this fails.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with (
            unfinished.open("wb") as file,
            # The name and the time of an archive would be in its first bytes.
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in files:
                _add(archive, path, path.relative_to(folder).as_posix())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _left_out(folder: Path) -> bool:
    return folder.name in LEFT_OUT or (folder / "pyvenv.cfg").is_file()


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    if path.is_symlink():
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
        archive.addfile(member)
        return
    with path.open("rb") as content:
        found = os.fstat(content.fileno())
        member.size = found.st_size
        member.mode = 0o755 if found.st_mode & 0o100 else 0o644
        archive.addfile(member, content)


def _stays(link: Path, folder: Path) -> bool:
    aim = Path(os.readlink(link))
    return not aim.is_absolute() and link.resolve().is_relative_to(folder.resolve())
