"""How fast a sealed file is read, beside ``openssl enc -aes-256-ctr`` on the same plain file.

Both read what the page cache holds and throw away what they decrypt. Rounds alternate, so that a
busy machine slows down both; the best of each counts. Give the size in MiB: 256 unless given.
"""

import resource
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from atomserve import sealed

MiB = 1024 * 1024
ROUNDS = 5


def write_plain(path: Path, size: int) -> None:
    block = secrets.token_bytes(MiB)
    with path.open("wb") as file:
        for _ in range(size):
            file.write(block)


def read_sealed(path: Path, key: bytes) -> float:
    buffer = bytearray(MiB)
    start = perf_counter()
    with sealed.open(path, key) as file:
        while file.readinto(buffer):
            pass
    return perf_counter() - start


def read_openssl(path: Path, secret: list[str]) -> float:
    command = ["openssl", "enc", "-d", "-aes-256-ctr", *secret, "-in", str(path)]
    start = perf_counter()
    subprocess.run([*command, "-out", "/dev/null"], check=True)
    return perf_counter() - start


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    key = secrets.token_bytes(32)
    secret = ["-K", key.hex(), "-iv", secrets.token_hex(16)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, ours, theirs = folder / "plain", folder / "ours", folder / "theirs"
        write_plain(plain, size)
        encrypt = ["openssl", "enc", "-aes-256-ctr", *secret]
        subprocess.run([*encrypt, "-in", str(plain), "-out", str(theirs)], check=True)
        sealed.seal(plain, ours, key)
        plain.unlink()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rounds = [(read_sealed(ours, key), read_openssl(theirs, secret)) for _ in range(ROUNDS)]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    best, reference = (min(times) for times in zip(*rounds, strict=True))
    print(f"sealed.open: {size / best:.0f} MiB/s; openssl enc: {size / reference:.0f} MiB/s")
    print(f"ratio: {reference / best:.2f}; memory grown while reading: {grown} KiB")


if __name__ == "__main__":
    main()
