from __future__ import annotations

import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from atomserve.errors import ConfigError
from atomserve.supervisor.listeners import AddressBusy, listen, listen_unix


def test_port_0_is_one_port_for_every_process_and_address() -> None:
    with closing(listen("localhost", 0, processes=3)) as listeners:
        ports = {sock.getsockname()[1] for group in listeners.groups for sock in group}
        assert len(ports) == 1
        assert len(listeners.groups) == 3
        assert all(place.endswith(f":{ports.copy().pop()}") for place in listeners.places)


def test_each_process_gets_its_share_of_the_connections() -> None:
    with closing(listen("127.0.0.1", 0, processes=2)) as listeners:
        address = listeners.groups[0][0].getsockname()
        clients = [socket.create_connection(address) for _ in range(64)]
        for (sock,) in listeners.groups:
            sock.settimeout(5)
            sock.accept()[0].close()
        for client in clients:
            client.close()


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    try:
        listeners = listen("::1", 0, processes=1)
    except ConfigError:
        pytest.skip("NOT TESTED: this machine has no IPv6")
    with closing(listeners):
        assert listeners.places[0].startswith("[::1]:")


@pytest.mark.parametrize("processes", [1, 2])
def test_an_address_that_is_listened_on_is_busy(processes: int) -> None:
    with closing(listen("127.0.0.1", 0, processes=processes)) as listeners:
        port = listeners.groups[0][0].getsockname()[1]
        with pytest.raises(AddressBusy, match=f"127.0.0.1:{port} is in use"):
            listen("127.0.0.1", port, processes=processes)


@pytest.mark.parametrize("host", ["", "no such host", "203.0.113.7"])
def test_a_host_that_cannot_be_used_is_a_config_error(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^host: "):
        listen(host, 0, processes=1)


def test_a_file_in_the_place_of_a_unix_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt is a file, not a unix socket"):
        listen_unix(str(path), processes=1)
    assert path.read_text() == "mine"


def test_a_folder_in_the_place_of_a_unix_socket_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^uds: .* is a folder"):
        listen_unix(str(tmp_path), processes=1)


def test_a_unix_socket_is_for_its_user_and_group(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with closing(listen_unix(str(path), processes=1)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_unix_socket_in_no_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^uds: cannot listen on"):
        listen_unix(str(tmp_path / "no" / "socket"), processes=1)


def test_closing_twice_leaves_the_next_owner_its_path(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = listen_unix(str(path), processes=1)
    first.close()
    with closing(listen_unix(str(path), processes=1)):
        first.close()
        assert path.exists()
