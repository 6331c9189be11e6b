"""Serve the OCR plugin, send it the picture that it ships, and show the answer."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys

from workspace import ROOT, VENV, install, workspace

MODEL = "ocr"
PICTURE = ROOT / "plugins" / "ocr" / "atomserve_ocr" / "example.jpg"
ATOMSERVE = VENV / "bin" / "atomserve"


class Server:
    """`atomserve run` as a child; ends with the block that it is used in."""

    def __init__(self, port: int) -> None:
        command = [ATOMSERVE, "run", "--plugins", MODEL, "--port", str(port), "--no-access-log"]
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            text=True,
            # A terminal's Ctrl-C reaches this script alone, which passes it on once.
            start_new_session=True,
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def ready(self) -> str:
        """Pass on what the server prints until it is ready; return its address."""
        address = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)
            if found := re.search(r"https?://[^\s/]+", line):
                address = found[0]
            if line.rstrip().endswith("/docs"):
                return address
        sys.exit(f"scripts/demo: error: the server ended with code {self._process.wait()}")

    def serve(self) -> int:
        """Pass on what the server prints until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)
        return self._process.wait()


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
        ask(server.ready())
        if options.once:
            return 0
        try:
            print("Serving until Ctrl-C.", flush=True)
            return server.serve()
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    with workspace():
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit(130)
