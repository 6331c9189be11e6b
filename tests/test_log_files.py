"""Log files: of a day and a size, shared by processes, without secrets, never in anybody's way."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from atomserve.configuration.load import Loaded, load_settings
from atomserve.settings import LogsSettings
from atomserve.telemetry.file_writer import FileWriter
from atomserve.telemetry.files import LogFiles
from atomserve.telemetry.logs import configure_logging
from atomserve.telemetry.secrets import masked
from atomserve.testing import serve
from atomserve.wrapper import Wrapper

ROOT = Path(__file__).parent.parent


class Day:
    """A calendar that turns when it is told to."""

    def __init__(self) -> None:
        self.name = "20260131"

    def __call__(self) -> str:
        return self.name


@pytest.fixture
def day() -> Day:
    return Day()


def files(folder: Path, day: Day, *, max_bytes: int = 100, keep: int = 30) -> LogFiles:
    return LogFiles(folder, "svc", max_bytes=max_bytes, keep=keep, day=day)


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_full_file_is_followed_by_the_next_number(tmp_path: Path, day: Day) -> None:
    log = files(tmp_path / "new" / "folder", day, max_bytes=10)
    for line in (b"first\n", b"2\n", b"third\n", b"longer than a file may be\n", b"5\n"):
        log.write(line)
    assert held(tmp_path / "new" / "folder") == {
        "20260131-0001-svc.log": b"first\n2\n",
        "20260131-0002-svc.log": b"third\n",
        "20260131-0003-svc.log": b"longer than a file may be\n",
        "20260131-0004-svc.log": b"5\n",
    }
    log.close()


def test_a_new_day_begins_a_new_file(tmp_path: Path, day: Day) -> None:
    log = files(tmp_path, day)
    log.write(b"old\n")
    day.name = "20260201"
    log.write(b"new\n")
    assert held(tmp_path) == {"20260131-0001-svc.log": b"old\n", "20260201-0001-svc.log": b"new\n"}
    log.close()


def test_a_restarted_process_goes_on_where_the_last_one_was(tmp_path: Path, day: Day) -> None:
    for line in (b"1234567\n", b"abcdefg\n", b"x\n"):
        log = files(tmp_path, day, max_bytes=10)
        log.write(line)
        log.close()
    assert list(held(tmp_path).values()) == [b"1234567\n", b"abcdefg\nx\n"]


def test_only_the_newest_files_of_that_name_are_left(tmp_path: Path, day: Day) -> None:
    kept = ("20250101-0001-other.log", "notes.txt", "20250101-0001-svc.log.gz")
    for name in (*kept, "20250101-0001-svc.log", "20260130-9999-svc.log", "20260130-10000-svc.log"):
        (tmp_path / name).write_bytes(b"")
    log = files(tmp_path, day, max_bytes=10, keep=3)
    log.write(b"first\n")
    log.write(b"second\n")
    left = {"20260130-10000-svc.log", "20260131-0001-svc.log", "20260131-0002-svc.log"}
    assert set(held(tmp_path)) == left | set(kept)
    log.close()


def test_a_file_that_somebody_removes_is_made_anew(tmp_path: Path, day: Day) -> None:
    log = files(tmp_path, day)
    log.write(b"gone\n")
    (tmp_path / "20260131-0001-svc.log").unlink()
    log.write(b"there\n")
    assert held(tmp_path) == {"20260131-0001-svc.log": b"there\n"}
    log.close()


def test_a_link_in_a_files_place_is_not_followed(tmp_path: Path, day: Day) -> None:
    (tmp_path / "20260131-0001-svc.log").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        files(tmp_path, day).write(b"line\n")
    assert not (tmp_path / "target").exists()


FULL = """
import resource, sys
from pathlib import Path
from atomserve.telemetry.files import LogFiles
log = LogFiles(Path(sys.argv[1]), "svc", max_bytes=1000, keep=3, day=lambda: "20260131")
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
for line in (b"1234\\n", b"torn apart\\n"):
    try:
        log.write(line)
    except OSError:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.write(b"there is room\\n")
"""


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], cwd=ROOT, check=True)
    assert list(held(tmp_path).values()) == [b"1234\ntor\nthere is room\n"]


WRITER = """
import sys
from pathlib import Path
from atomserve.telemetry.files import LogFiles
folder, who = Path(sys.argv[1]), sys.argv[2]
log = LogFiles(folder, "svc", max_bytes=20_000, keep=1000, day=lambda: "20260131")
for number in range(400):
    log.write(f"{who} {number} {'x' * (number * 7 % 900)}\\n".encode())
"""


def test_processes_that_write_together_lose_and_mix_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    lines = [line for content in held(tmp_path).values() for line in content.splitlines()]
    found = sorted((line.split()[0], int(line.split()[1])) for line in lines)
    assert found == [(name.encode(), number) for name in "abc" for number in range(400)]
    assert all(line.count(b"x") == int(line.split()[1]) * 7 % 900 for line in lines)
    # Each may have looked just before another one wrote.
    assert all(len(content) < 20_000 + 2 * 1000 for content in held(tmp_path).values())


def test_a_disk_that_is_back_is_written_to_again(tmp_path: Path, day: Day) -> None:
    time = [0.0]
    blocker = tmp_path / "folder"
    blocker.write_bytes(b"not a folder")
    writer = FileWriter(files(blocker, day), clock=lambda: time[0])
    writer.write(b"a\n")
    writer.write(b"b\nc\n")
    assert writer.flush(10)
    assert writer.lost == 3
    blocker.unlink()
    writer.write(b"too early\n")
    assert writer.flush(10)
    time[0] = 1.0
    writer.write(b"d\n")
    assert writer.flush(10)
    assert (writer.lost, held(blocker)) == (4, {"20260131-0001-svc.log": b"d\n"})


def test_who_logs_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def slow_day() -> str:
        begun.set()
        go_on.wait()
        return "20260131"

    writer = FileWriter(LogFiles(tmp_path, "svc", max_bytes=100, keep=3, day=slow_day), most=10)
    writer.write(b"12345\n")
    begun.wait()
    writer.write(b"789\n")
    writer.write(b"one too many\n")
    assert not writer.flush(0)
    assert writer.lost == 1
    go_on.set()
    assert writer.flush(10)
    assert list(held(tmp_path).values()) == [b"12345\n789\n"]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[LogsSettings]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers.clear()
    yield LogsSettings(folder=str(tmp_path), name="svc")
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers[:] = handlers


def records(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return the ``number`` lines of the only file; each flush waits for a second at most."""
    for _ in range(30):
        for handler in logging.getLogger().handlers:
            handler.flush()
        lines = [line for path in folder.rglob("*.log") for line in path.read_bytes().splitlines()]
        if len(lines) == number:
            break
    return [json.loads(line) for line in lines]


def test_s17_s18_what_is_in_the_file_has_neither_secrets_nor_control_characters(
    tmp_path: Path, settings: LogsSettings
) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        configure_logging(stream=stream, kept=settings)
        log = structlog.get_logger()
        log.info(
            "called\r\nFAKE \x1b[31m with Authorization: Bearer CANARY-1",
            headers={"Authorization": "Bearer CANARY-2", "Cookie": ["a=CANARY-3"], "Accept": "*/*"},
            url="https://user:CANARY-4@host/path?token=CANARY-5&size=3",
            api_key="CANARY-6",
            raw=[(b"authorization", b"Basic CANARY-7")],
            tokens=512,
            long="x" * 100_000,
        )
        try:
            raise ValueError("cannot log in with password='CANARY-8'")
        except ValueError:
            logging.getLogger("library").exception("failed with %s", {"db_password": "CANARY-9"})
        first, second = records(tmp_path, 2)
    assert "CANARY" not in str(first) + str(second)
    assert "CANARY" not in (tmp_path / "stderr").read_text()
    assert "'Accept': '*/*'" in first["headers"] and "&size=3" in first["url"]
    assert first["tokens"] == 512
    assert first["event"].startswith("called\\r\\nFAKE \\x1b[31m")
    assert len(first["long"]) < 2100
    assert "ValueError: cannot log in with password='***'" in second["exception"]


@pytest.mark.parametrize(
    "text", ["basic training", "max_tokens=512", "3 cookies", "tokenizer: bert", "http://h:80/x"]
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert masked(text) == text


def test_s18_what_the_environment_keeps_secret_is_masked_wherever_it_turns_up() -> None:
    code = (
        "import logging, structlog\n"
        "from atomserve.telemetry.logs import configure_logging\n"
        "configure_logging()\n"
        "log = structlog.get_logger()\n"
        "log.info('got CANARY-1, not CANARY-12', value=['x CANARY-3 y'], n='on')\n"
        "try: raise ValueError('CANARY-12')\n"
        "except ValueError: logging.getLogger('library').exception('CANARY-3 failed')\n"
    )
    secrets = {"DB_PASSWORD": "CANARY-1", "API_TOKEN": "CANARY-12", "MODEL_KEY": "CANARY-3"}
    environ = os.environ | secrets | {"SHORT_TOKEN": "on"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert "CANARY" not in done.stderr.decode().replace("raise ValueError('***')", "")
    assert (first["event"], first["value"], first["n"]) == ("got ***, not ***", ["x *** y"], "on")
    assert second["exception"].endswith("ValueError: ***")


def test_a_folder_that_cannot_be_made_is_one_warning_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    code = (
        "import logging, structlog\n"
        "from atomserve.settings import LogsSettings\n"
        "from atomserve.telemetry.logs import configure_logging\n"
        f"configure_logging(kept=LogsSettings(folder={str(tmp_path / 'file' / 'logs')!r}))\n"
        "for number in range(3): structlog.get_logger().info('line')\n"
        "for number in range(30): logging.getLogger().handlers[0].flush()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    events = sorted(json.loads(line)["event"] for line in done.stderr.splitlines())
    assert events == ["line", "line", "line", "logs.files_failed"]


def load(**environ: str) -> Loaded:
    return load_settings(config_file=None, environ=environ, flags={})


def test_linkers_variables_name_the_files_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(LOG_DIR="atom", LOG_BACKUP_COUNT="7", LOG_FILE_MAX_BYTES="1048576")
    assert loaded.settings.logs == LogsSettings(
        folder="logs/atom", name="atom", max_bytes=1048576, keep=7
    )
    assert loaded.origins["logs.folder"] == "environment LOG_DIR"
    assert load(LOG_DIR="/var/log/svc/").settings.logs.folder == "/var/log/svc"
    assert load().settings.logs.folder is None


def test_wrong_values_of_the_logs_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(LOG_BACKUP_COUNT="many", ATOMSERVE_LOGS__MAX_BYTES="-1", LOG_DIR="atom")
    assert loaded.settings.logs == LogsSettings(folder="logs/atom", name="atom")
    assert [warning.partition(" =")[0] for warning in loaded.warnings] == [
        "logs.keep",
        "logs.max_bytes",
    ]


class Loud(Wrapper):
    def predict(self, text: str) -> str:
        structlog.get_logger("plugin").warning("said", text=text)
        return text


def test_all_processes_of_an_instance_write_the_same_files(tmp_path: Path) -> None:
    logs = {"folder": str(tmp_path), "name": "svc"}
    with serve(Loud, executor="process", access_log=True, logs=logs) as client:
        assert client.post("/v1/models/loud/predict", json={"text": "hello"}).status_code == 200
    folder = tmp_path / socket.gethostname()
    lines = [json.loads(line) for content in held(folder).values() for line in content.splitlines()]
    assert {"http.access", "said"} <= {line["event"] for line in lines}
    assert oct(folder.stat().st_mode & 0o777) == oct(0o750 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
