"""URLs that requests name: where they may lead to, and how much of it is taken."""

import ipaddress
import itertools
import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from live import certificate
from origins import Listeners, Names, Origin, origin, redirect, whole

from atomserve.context import Context, current_context
from atomserve.errors import AtomError, SourceFailed, SourceRefused, SourceTimeout, TooLarge
from atomserve.media.addresses import Reach, is_public
from atomserve.media.resolving import REFUSED
from atomserve.media.sources import Sources
from atomserve.media.urls import follow, read_url
from atomserve.settings import MediaSettings

LOOPBACK = ("127.0.0.0/8",)


def sources(lookup: Any = socket.getaddrinfo, **settings: Any) -> Sources:
    return Sources(MediaSettings(urls=True, **settings), lookup=lookup)


def fetch(url: str, lookup: Any = socket.getaddrinfo, **settings: Any) -> bytes:
    allowed = {"allow_networks": LOOPBACK, **settings}
    return bytes(sources(lookup, **allowed).bytes_of({"url": url}))


@pytest.fixture
def server() -> Iterator[Origin]:
    with origin() as found:
        found.routes["/"] = whole(b"whole")
        yield found


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    found = Listeners()
    yield found
    found.close()


FORMS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0X7F000001",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "127\u30020\u30020\u30021",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[fd00:ec2::254]",
    "[fc00::1]",
    "[ff02::1]",
    "[v1.x]",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.0.1",
    "10.0.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "localhost",
    "localhost.",
    "LOCALHOST",
]


@pytest.mark.parametrize("host", FORMS)
def test_s01_no_form_of_an_inner_address_is_connected_to(host: str, listeners: Listeners) -> None:
    with pytest.raises(SourceRefused) as caught:
        sources().bytes_of({"url": f"http://{host}:{listeners.port}/"})
    assert (caught.value.detail, caught.value.status) == (REFUSED, 400)
    assert listeners.connections() == 0


def test_s01_the_listeners_would_hear_a_connection(listeners: Listeners) -> None:
    with pytest.raises(SourceTimeout):
        fetch(f"http://127.0.0.1:{listeners.port}/", timeout=0.2)
    assert listeners.connections() == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("100.63.255.255", True),
        ("100.64.0.0", False),
        ("172.15.255.255", True),
        ("172.31.255.255", False),
        ("192.0.0.192", False),
        ("192.0.1.1", True),
        ("223.255.255.255", True),
        ("224.0.0.0", False),
        ("2606:4700::1111", True),
        ("2001:200::1", True),
        ("2001:1ff::1", False),
        ("2001:db8::1", False),
        ("2002:808:808::1", False),
        ("3fff::1", False),
        ("4000::1", False),
        ("1fff::1", False),
        ("64:ff9b::808:808", False),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_s01_the_table_of_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@given(st.ip_addresses())
def test_s01_what_the_standard_library_calls_private_is_never_public(address: Any) -> None:
    if is_public(address):
        assert not (
            address.is_private
            or address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
        )


def test_a_network_that_the_operator_lists_may_be_reached() -> None:
    reach = Reach(["10.1.0.0/16", "fd00::/8"])
    assert reach.includes(ipaddress.ip_address("10.1.2.3"))
    assert reach.includes(ipaddress.ip_address("fd00::1"))
    assert not reach.includes(ipaddress.ip_address("10.2.0.1"))
    # An address that holds a listed one leads through somebody's gateway.
    assert not reach.includes(ipaddress.ip_address("::ffff:10.1.2.3"))


@pytest.mark.parametrize(
    "url",
    [
        "http://good\\@127.0.0.1/",
        "http://good@127.0.0.1/",
        "http://good:pass@127.0.0.1/",
        "http://127.0.0.1\t/",
        "http://127.0.0.1\n/",
        " http://127.0.0.1/",
        "http:///127.0.0.1/",
        "http:/127.0.0.1/",
        "http:127.0.0.1",
        "//127.0.0.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:080/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:/",
        "http://127.0.0.1/ ",
        "http://127.0.0.1/%",
        "http://127.0.0.1/%0",
        "http://127.0.0.1/\u00e9",
        "http://127.0.0.1\\/",
        "http://-good.example/",
        "http://good..example/",
        "http://\u212aelvin.example/",
        "http://[127.0.0.1]/",
        "http://[::1/",
        "http://::1/",
        "http://",
        "",
        "http://127.0.0.1/" + "a" * 9000,
        "HTTP://127.0.0.1/",
    ],
)
def test_s04_another_than_the_canonical_form_is_refused(url: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        fetch(url)
    assert caught.value.detail == REFUSED


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "data:,x",
        "unix:/tmp/x",
        "jar:http://127.0.0.1/!/x",
        "javascript:1",
        "ws://127.0.0.1/",
    ],
)
def test_s06_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        fetch(url)
    assert caught.value.detail == REFUSED


@given(st.text(max_size=60) | st.from_regex(r"https?://[!-~]{1,40}", fullmatch=True))
@example("http://a#@b/")
def test_s04_what_is_read_reads_the_same_again(text: str) -> None:
    try:
        url = read_url(text)
    except ValueError:
        return
    assert read_url(str(url)) == url
    assert text.lower().startswith(f"{url.scheme}://")
    # The host stands right behind the scheme, whatever follows.
    behind = text.lower().removeprefix(f"{url.scheme}://").removeprefix("[")
    assert behind.startswith(url.host) or url.address is not None


def test_s06_no_proxy_of_the_environment_is_used(
    server: Origin, monkeypatch: pytest.MonkeyPatch, listeners: Listeners
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listeners.port}")
    assert fetch(server.url()) == b"whole"
    assert listeners.connections() == 0


def test_a_fetch_asks_for_the_bytes_as_they_are(server: Origin) -> None:
    server.routes["/a"] = whole(b"x")
    assert fetch(server.url("/a?b=c%20d#part")) == b"x"
    lines = server.heads[0].split("\r\n")
    assert lines[0] == "GET /a?b=c%20d HTTP/1.1"
    assert f"host: 127.0.0.1:{server.port}" in map(str.lower, lines)
    assert "accept-encoding: identity" in map(str.lower, lines)


REDIRECTS = ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]


@pytest.mark.parametrize("status", REDIRECTS)
def test_s02_a_redirect_is_followed(server: Origin, status: str) -> None:
    server.routes["/from/here"] = redirect("../to?x=1", status)
    server.routes["/to"] = whole(b"there")
    assert fetch(server.url("/from/here")) == b"there"
    assert server.heads[1].startswith("GET /to?x=1 ")


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:{}/", "//127.0.0.1:{}/", "http://localhost:{}/", "http://0x7f.1:{}"]
)
def test_s02_a_redirect_inside_is_refused(listeners: Listeners, place: str, status: str) -> None:
    with origin("127.0.0.2") as server:
        server.routes["/"] = redirect(place.format(listeners.port), status)
        with pytest.raises(SourceRefused) as caught:
            fetch(server.url(), allow_networks=["127.0.0.2/32"])
    assert caught.value.detail == REFUSED
    assert listeners.connections() == 0


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://a@b/", "/\\x"])
def test_s02_a_redirect_to_what_is_no_url_is_refused(server: Origin, place: str) -> None:
    server.routes["/"] = redirect(place)
    with pytest.raises(SourceRefused):
        fetch(server.url())


def test_s02_at_most_three_redirects_are_followed(server: Origin) -> None:
    for number in range(6):
        server.routes[f"/{number}"] = redirect(f"/{number + 1}")
    server.routes["/6"] = whole(b"end")
    assert fetch(server.url("/3")) == b"end"
    asked = len(server.heads)
    with pytest.raises(SourceFailed, match="more than 3"):
        fetch(server.url("/0"))
    assert len(server.heads) - asked == 4


def test_s02_a_redirect_from_https_to_http_is_refused() -> None:
    url = read_url("https://good.example/")
    with pytest.raises(ValueError, match="from https"):
        follow(url, "http://good.example/")
    assert follow(url, "//other.example/x").host == "other.example"


def test_s05_a_loop_of_redirects_ends(server: Origin) -> None:
    server.routes["/"] = redirect("/", "301 Moved")
    with pytest.raises(SourceFailed):
        fetch(server.url())


def test_s03_the_address_that_was_checked_is_connected_to(listeners: Listeners) -> None:
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    with origin("127.0.0.2") as server:
        server.routes["/"] = whole(b"good")
        url = server.url(host="pictures.example")
        assert fetch(url, names, allow_networks=["127.0.0.2/32"]) == b"good"
        assert names.asked == ["pictures.example"]
        # The second connection asks anew, and the name leads inside by then.
        with pytest.raises(SourceRefused):
            fetch(url, names, allow_networks=["127.0.0.2/32"])
        assert len(server.heads) == 1
        assert f"pictures.example:{server.port}" in server.heads[0]
    assert listeners.connections() == 0


@pytest.mark.parametrize(
    "turn", list(itertools.permutations(["127.0.0.2", "127.0.0.1", "8.8.8.8"]))
)
def test_s03_a_name_with_an_inner_address_among_others_is_refused(turn: tuple[str, ...]) -> None:
    with origin("127.0.0.2") as server:
        url = server.url(host="pictures.example")
        with pytest.raises(SourceRefused) as caught:
            fetch(url, Names(list(turn)), allow_networks=["127.0.0.2/32"])
        assert caught.value.detail == REFUSED
        assert not server.heads


@pytest.mark.parametrize("turn", [[], ["not an address"], ["::1%lo"], ["::ffff:127.0.0.2"]])
def test_s03_a_name_without_an_address_to_check_is_refused(turn: list[str]) -> None:
    with pytest.raises(SourceRefused):
        fetch("http://pictures.example:1/", Names(turn))


def test_s03_a_name_that_does_not_resolve_is_refused_like_an_inner_one() -> None:
    def lookup(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(SourceRefused) as caught:
        fetch("http://pictures.example/", lookup)
    assert caught.value.detail == REFUSED


def test_s03_a_host_is_tried_at_its_other_addresses(server: Origin) -> None:
    names = Names(["127.0.0.9", "127.0.0.1"])  # nobody listens at the first one
    assert fetch(server.url(host="pictures.example"), names) == b"whole"


def test_s03_a_name_that_does_not_resolve_in_time_is_told() -> None:
    given_up = Event()

    def lookup(*_: Any, **__: Any) -> Any:
        given_up.wait(15)
        raise OSError

    try:
        with pytest.raises(SourceTimeout):
            fetch("http://pictures.example/", lookup, timeout=0.2)
    finally:
        given_up.set()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Origin, str, list[str | None]]]:
    chain, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    asked: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    with origin(tls=context) as server:
        server.routes["/"] = whole(b"secret")
        yield server, chain, asked


def test_s03_https_is_checked_against_the_named_host(
    secure: tuple[Origin, str, list[str | None]],
) -> None:
    server, chain, asked = secure
    assert fetch(server.url(), ca_file=chain) == b"secret"
    names = Names(["127.0.0.1"])
    # The certificate is the address's; the name that was asked for is another.
    with pytest.raises(SourceFailed):
        fetch(server.url(host="pictures.example"), names, ca_file=chain)
    assert asked == [None, "pictures.example"]


def test_an_unknown_authority_is_a_failure(secure: tuple[Origin, str, list[str | None]]) -> None:
    with pytest.raises(SourceFailed) as caught:
        fetch(secure[0].url())
    assert caught.value.status == 502


def endless(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        sock.sendall(bytes(65_536))


def endless_chunks(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        sock.sendall(b"10000\r\n" + bytes(65_536) + b"\r\n")


def huge(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n" + bytes(1000))


@pytest.mark.parametrize("act", [endless, endless_chunks, huge])
def test_s05_too_many_bytes_are_refused_and_not_kept(
    server: Origin, act: Callable[[socket.socket], None]
) -> None:
    server.routes["/"] = act
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="at most 1048576 bytes"):
            fetch(server.url(), max_bytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_as_many_bytes_as_are_allowed_are_taken(server: Origin) -> None:
    server.routes["/"] = whole(bytes(1 << 20))
    assert len(fetch(server.url(), max_bytes=1 << 20)) == 1 << 20
    with pytest.raises(TooLarge):
        fetch(server.url(), max_bytes=(1 << 20) - 1)


def drip(head: bytes) -> Callable[[Origin], Callable[[socket.socket], None]]:
    def act(server: Origin) -> Callable[[socket.socket], None]:
        def send(sock: socket.socket) -> None:
            sock.sendall(head)
            while not server.closing.wait(0.02):
                sock.sendall(b"a")

        return send

    return act


SLOW = {
    "silence": b"",
    "head": b"HTTP/1.1 200 OK\r\nX: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
}


@pytest.mark.parametrize("head", SLOW.values(), ids=SLOW)
def test_s05_bytes_that_trickle_end_with_the_whole_time(server: Origin, head: bytes) -> None:
    # Each comes long before a socket's own timeout would count.
    server.routes["/"] = drip(head)(server)
    with pytest.raises(SourceTimeout) as caught:
        fetch(server.url(), timeout=0.4)
    assert caught.value.status == 504


def test_s05_a_fetch_ends_with_its_request(server: Origin) -> None:
    server.routes["/"] = drip(SLOW["body"])(server)
    token = current_context.set(Context(deadline=time.monotonic() + 0.3))
    try:
        with pytest.raises(SourceTimeout):
            fetch(server.url(), timeout=600)
    finally:
        current_context.reset(token)


def test_s05_a_server_that_does_not_accept_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            with pytest.raises(SourceTimeout):
                fetch(f"http://127.0.0.1:{full.getsockname()[1]}/", connect_timeout=0.2)
        finally:
            for sock in waiting:
                sock.close()


NONSENSE = {
    "status": whole(b"no", status="404 Not Found"),
    "partly": whole(b"no", status="206 Partial Content"),
    "compressed": whole(b"\x1f\x8b", "Content-Encoding: gzip"),
    "no http": lambda sock: sock.sendall(b"220 ready\r\n\r\n"),
    "cut": lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
    "cut chunk": lambda sock: sock.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"
    ),
    "nothing": lambda _: None,
    "long head": lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000),
    "many heads": lambda sock: sock.sendall(b"HTTP/1.1 103 Early\r\n\r\n" * 100),
    "two lengths": lambda sock: sock.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    ),
    "negative": lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab"),
}


@pytest.mark.parametrize("act", NONSENSE.values(), ids=NONSENSE)
def test_s05_another_answer_than_hoped_for_is_a_failure(server: Origin, act: Any) -> None:
    server.routes["/"] = act
    with pytest.raises(SourceFailed) as caught:
        fetch(server.url())
    assert caught.value.status == 502


def test_a_port_where_nobody_listens_is_a_failure(server: Origin) -> None:
    port = server.port
    server.close()
    with pytest.raises(SourceFailed):
        fetch(f"http://127.0.0.1:{port}/")


def test_no_failure_tells_what_was_behind_the_url(server: Origin) -> None:
    server.routes["/"] = whole(b"inner secret", status="500 secret")
    with pytest.raises(AtomError) as caught:
        fetch(server.url())
    assert "secret" not in caught.value.detail
    assert "127" not in caught.value.detail
