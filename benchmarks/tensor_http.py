"""A tensor of 4.9 MB over HTTP as binary, there and back: worker, bare app and PyTriton.

    python -m benchmarks.tensor_http [--rounds 9] [--seconds 2] [--connections 4]

PyTriton is asked in its own binary protocol. It is left out, and that is said, where
``.cache/pytriton`` is no environment with it:

    /usr/bin/python3 -m venv .cache/pytriton
    .cache/pytriton/bin/pip install nvidia-pytriton
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from atomserve.codecs.tensors import data_of, npy_head
from benchmarks.load import Subject, atomserve, post, report_loads, several, wrk
from benchmarks.models import identity
from benchmarks.rounds import Claim, arguments, by_turns, judge

PYTRITON = Path(".cache/pytriton/bin/python")
NPY = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
PATH = "/v1/models/identity/predict"
SUBJECTS = {
    "bare ASGI app": Subject(("-m", "benchmarks.bare_tensor", "{port}"), PATH, NPY),
    "atomserve worker": Subject(atomserve(identity.__file__), PATH, NPY),
    "atomserve thread": Subject(atomserve(identity.__file__, "--executor", "thread"), PATH, NPY),
}
# The bytes of the only input as they are: the binary protocol without a header of JSON.
RAW = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
TRITON = Subject(
    ("benchmarks/pytriton_identity.py", "{port}"),
    "/v2/models/identity/infer",
    RAW,
    ready="/v2/models/identity/ready",
    python=str(PYTRITON),
)
CLAIMS = (
    Claim("atomserve worker", "PyTriton", least=1.8),
    Claim("atomserve worker", "bare ASGI app", least=0.8),
)


def subjects() -> dict[str, Subject]:
    if PYTRITON.exists():
        return SUBJECTS | {"PyTriton": TRITON}
    print(f"SKIPPED: PyTriton ({PYTRITON} is missing; --help tells how to make it)")
    return SUBJECTS


def main() -> None:
    options = arguments(__doc__, rounds=9, seconds=2, connections=4)
    array = identity.picture()
    numbers = bytes(data_of(array))
    with several(subjects()) as servers:
        ways = {}
        for name, server in servers.items():
            body = numbers if server.headers is RAW else npy_head(array) + numbers
            if not post(server, body).endswith(numbers):
                sys.exit(f"{name} answered something else")
            ways[name] = partial(
                wrk, server, body, connections=options.connections, seconds=options.seconds
            )
        loads = by_turns(ways, options.rounds)
    rates = report_loads(loads, reference="bare ASGI app")
    judge(rates, *CLAIMS)


if __name__ == "__main__":
    main()
