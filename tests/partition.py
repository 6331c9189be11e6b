"""A partition between an instance and its control plane, in network namespaces of their own.

Run it as the first process of a new network namespace, with the seconds that the partition lasts
and a folder; it prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from control_plane import ControlPlane
from instances import running

# In the instance's namespace: the command runs when its end of the wire is there.
ENTER = """
ip link set lo up
until ip addr add 10.99.0.2/24 dev inner 2>/dev/null; do sleep 0.05; done
ip link set inner up
exec "$@"
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def asked(uds: Path, failures: list[str], done: threading.Event) -> None:
    """Ask the instance again and again over its unix socket, which no partition reaches."""
    while not done.wait(0.1):
        command = ["curl", "-sf", "-m", "5", "--unix-socket", str(uds), "http://a/readyz"]
        if subprocess.run(command, check=False).returncode:
            failures.append(f"{time.monotonic():.1f}")


def main(seconds: float, folder: Path) -> None:
    ip("link", "set", "lo", "up")
    plane = ControlPlane(host="0.0.0.0")
    plane.up()
    uds = folder / "atom.sock"
    settings = {
        "uds": str(uds),
        "registration": {
            "registrar": "consul",
            "url": f"http://10.99.0.1:{plane.port}",
            "advertise": "http://10.99.0.2:8000",
            "start_jitter": 0.0,
        },
    }
    enter = ["unshare", "--net", "sh", "-c", ENTER, "sh"]
    failures: list[str] = []
    done = threading.Event()
    with running(settings, {}, enter) as instance:
        pid = str(instance.process.pid)
        ip("link", "add", "outer", "type", "veth", "peer", "name", "inner", "netns", pid)
        ip("addr", "add", "10.99.0.1/24", "dev", "outer")
        ip("link", "set", "outer", "up")
        first = plane.wait_for("pass", count=2, within=30)
        asking = threading.Thread(target=asked, args=(uds, failures, done))
        asking.start()
        ip("link", "set", "outer", "down")
        instance.wait_for_log("registration.changed", state="lost", within=30)
        time.sleep(seconds)
        ip("link", "set", "outer", "up")
        healed = time.monotonic()
        again = plane.wait_for("register", count=2, within=120)
        plane.wait_for("pass", count=len(plane.calls("pass")) + 2, within=30)
        done.set()
        asking.join()
    epochs = [int(call.body["Meta"]["epoch"]) for call in plane.calls("register")]
    facts = {"first": first.at, "after": again.at - healed, "epochs": epochs, "failures": failures}
    print(json.dumps(facts))


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
