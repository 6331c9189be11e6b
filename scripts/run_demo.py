"""Serve the OCR plugin, send it the picture that it ships, and show the answer."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

from workspace import ROOT, VENV, install, workspace

PATIENCE = 180.0
MODEL = "ocr"
PICTURE = ROOT / "plugins" / "ocr" / "atomserve_ocr" / "example.jpg"
ATOMSERVE = VENV / "bin" / "atomserve"


class Server:
    """`atomserve run` as a child; ends with the block that it is used in."""

    def __init__(self, port: int) -> None:
        command = [ATOMSERVE, "run", "--plugins", MODEL, "--port", str(port)]
        self._process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def address(self) -> str:
        """Return the address that the server prints."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)
            if found := re.search(r"https?://[^\s/]+", line):
                return found[0]
        sys.exit(f"scripts/demo: error: the server ended with code {self._process.wait()}")

    def wait_ready(self, address: str) -> None:
        end = time.monotonic() + PATIENCE
        while not answers(f"{address}/readyz"):
            if self._process.poll() is not None or time.monotonic() > end:
                sys.exit("scripts/demo: error: the server did not become ready")
            time.sleep(0.1)

    def serve(self) -> int:
        """Pass on what the server prints, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)
        return self._process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def ask(address: str) -> None:
    """Send the picture, and print the answer and how to repeat it."""
    picture = PICTURE.relative_to(ROOT)
    call = [ATOMSERVE, "call", address, MODEL, "--input", f"image=@{picture}"]
    print(f"\n$ atomserve {' '.join(map(str, call[1:]))}", flush=True)
    if subprocess.run([str(part) for part in call], check=False, cwd=ROOT).returncode:
        sys.exit("scripts/demo: error: the call failed")
    url = f"{address}/v1/models/{MODEL}/predict"
    print(f"\nThe same with curl:\n\n  curl --data-binary @{picture} {url}\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the answer")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    options = parser.parse_args()
    install("demo", "-e", ".", "-e", "./plugins/ocr")
    with Server(options.port) as server:
        address = server.address()
        server.wait_ready(address)
        ask(address)
        if options.once:
            return 0
        print("Serving until Ctrl-C.", flush=True)
        try:
            return server.serve()
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    with workspace():
        sys.exit(main())
