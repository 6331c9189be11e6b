from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from atomserve.transport.descriptors import MAX_PAYLOAD, receive_descriptors, send_descriptors

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pipes() -> Iterator[list[int]]:
    fds = [fd for _ in range(3) for fd in os.pipe()]
    yield fds
    for fd in fds:
        os.close(fd)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_messages_stay_apart_and_bring_their_descriptors(pair: Pair, pipes: list[int]) -> None:
    ours, theirs = pair
    send_descriptors(ours, b"one", pipes[:2])
    send_descriptors(ours, b"two" * 1000, [])
    send_descriptors(ours, b"three", pipes[3:4])
    payload, (read, write) = receive_descriptors(theirs, 2)
    assert payload == b"one"
    os.write(pipes[1], b"hello")
    assert os.read(read, 10) == b"hello"
    assert receive_descriptors(theirs, 1) == (b"two" * 1000, [])
    payload, (last,) = receive_descriptors(theirs, 1)
    assert payload == b"three"
    for fd in (read, write, last):
        assert not os.get_inheritable(fd)
        os.close(fd)


@pytest.mark.parametrize("sent", [2, 3, 6])
@pytest.mark.parametrize("most", [0, 1])
def test_too_many_descriptors_are_refused_and_closed(
    pair: Pair, pipes: list[int], sent: int, most: int
) -> None:
    ours, theirs = pair
    before = open_descriptors()
    send_descriptors(ours, b"many", pipes[:sent])
    with pytest.raises(ConnectionError, match="cut off"):
        receive_descriptors(theirs, most)
    assert open_descriptors() == before


def test_a_payload_that_is_too_long_is_refused_with_its_descriptors(
    pair: Pair, pipes: list[int]
) -> None:
    ours, theirs = pair
    ours.sendmsg(
        [b"x" * (MAX_PAYLOAD + 1)],
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipes[:1]))],
    )
    before = open_descriptors()
    with pytest.raises(ConnectionError, match="cut off"):
        receive_descriptors(theirs, 1)
    assert open_descriptors() == before


AT_ITS_LIMIT = """
import os, resource, socket, sys
from atomserve.transport.descriptors import receive_descriptors
side = socket.socket(fileno=int(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
try:
    while True:
        last = os.dup(0)
except OSError:
    os.close(last)
try:
    receive_descriptors(side, 6)
except ConnectionError as exc:
    print(exc)
os.dup(0)  # The only one that was free is free again.
"""


def test_a_process_at_its_limit_keeps_no_descriptor_of_a_torn_message(
    pair: Pair, pipes: list[int]
) -> None:
    ours, theirs = pair
    send_descriptors(ours, b"six", pipes)
    done = subprocess.run(
        [sys.executable, "-c", AT_ITS_LIMIT, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cut off" in done.stdout


def test_the_end_of_the_other_side_is_an_error(pair: Pair) -> None:
    ours, theirs = pair
    ours.close()
    with pytest.raises(ConnectionError, match="gone"):
        receive_descriptors(theirs, 1)
    with pytest.raises(OSError, match="Broken pipe"):
        send_descriptors(theirs, b"x", [])


def test_a_socket_that_does_not_wait_says_that_there_is_nothing(pair: Pair) -> None:
    _, theirs = pair
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        receive_descriptors(theirs, 1)


@pytest.mark.parametrize("payload", [b"", b"x" * (MAX_PAYLOAD + 1)])
def test_a_payload_that_could_not_be_received_is_not_sent(pair: Pair, payload: bytes) -> None:
    with pytest.raises(ValueError, match="a message has"):
        send_descriptors(pair[0], payload, [])


def test_the_module_needs_neither_numpy_nor_the_arenas() -> None:
    script = "import sys, atomserve.transport.descriptors; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
