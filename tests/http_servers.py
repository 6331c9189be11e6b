"""The HTTP servers that the same tests run on, and what each is known not to do.

Every instance that a test starts runs on the server that `ATOMSERVE_SERVER` names, by pytest's own
`--http-server`, or, for a test marked `both_servers`, on each in turn.
"""

from __future__ import annotations

import os

import pytest

SERVERS = ("hypercorn", "granian")

CANNOT: dict[str, dict[str, str]] = {
    "hypercorn": {},
    "granian": {
        "test_server.py::test_the_server_does_not_name_itself_nor_write_to_the_log": "it names "
        "the server in every answer; that it is Granian can be kept from clients",
        "test_server.py::test_a_connection_that_asks_nothing_is_closed_at_the_header_timeout": "it "
        "waits for a first byte for ever, and for headers as long as for the next request",
        "test_server.py::test_a_connection_that_has_asked_is_kept_for_longer[True]": "it keeps "
        "HTTP/2 connections whose client answers pings",
        "test_sessions.py::test_what_breaks_the_protocol_is_closed_with_the_protocols_code"
        "[\\x81\\x82\\x00\\x00\\x00\\x00\\xff\\xfe-1007]": "it does not tell what it has found "
        "wrong with a frame: all is 1002",
        "test_aiges_serving.py::test_what_the_guard_refuses_wears_the_same_dress": "it refuses "
        "more than 100 fields itself",
        "test_native.py::test_headers_over_the_limit_are_431": "it refuses more than 100 fields "
        "itself",
        "test_connections.py::test_who_cannot_shake_hands_is_refused_and_left": "it refuses a "
        "wrong handshake itself, and keeps the connection",
    },
}
"""By server and test, as `file::function` or `file::function[id]`: why it fails, as told to users
in docs/servers.md."""


def chosen() -> str:
    """Return the server that instances are to run on."""
    return os.environ.get("ATOMSERVE_SERVER", SERVERS[0])


def of(item: pytest.Item) -> str:
    """Return the server that ``item`` will run on."""
    asked = item.callspec.params.get("http_server") if hasattr(item, "callspec") else None
    return str(asked or chosen())


def reason(item: pytest.Item) -> str | None:
    """Return why ``item`` is known to fail on its server; None: it is not."""
    server = of(item)
    name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
    identity = item.name.partition("[")[2].removesuffix("]")
    if item.get_closest_marker("both_servers"):
        identity = identity.removeprefix(server).removeprefix("-")
    known = CANNOT[server]
    return known.get(name) or known.get(f"{name}[{identity}]")
