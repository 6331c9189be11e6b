"""What all tests share: Debian packages that a test may need, and the HTTP server it runs on."""

import os
import shutil
from collections.abc import Callable

import http_servers
import pytest
import structlog

# Packages whose program is called otherwise.
PROGRAMS = {"nghttp2-client": "h2load", "fonts-noto-cjk": "fc-list"}


def require(package: str) -> None:
    """Skip, loudly, the test that calls this when ``package`` is not installed."""
    if shutil.which(PROGRAMS.get(package, package)) is None:
        pytest.skip(f"needs a Debian package: apt-get install {package}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--http-server",
        choices=http_servers.SERVERS,
        help="the HTTP server of each instance that tests start",
    )


def pytest_configure(config: pytest.Config) -> None:
    if server := config.getoption("--http-server"):
        os.environ["ATOMSERVE_SERVER"] = server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("both_servers")
    if marked and not metafunc.config.getoption("--http-server"):
        metafunc.parametrize("http_server", http_servers.SERVERS, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if why := http_servers.reason(item):
            item.add_marker(pytest.mark.xfail(reason=why, run=False))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("debian"):
        for package in marker.args:
            require(package)


@pytest.fixture(autouse=True)
def http_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the instances of a test run on the server that it is parametrised with, if it is."""
    server = getattr(request, "param", None)
    if server is not None:
        monkeypatch.setenv("ATOMSERVE_SERVER", server)
    return http_servers.chosen()


@pytest.fixture(autouse=True)
def _plain_log() -> None:
    """Let a test begin with the log as it is before anybody configures it."""
    structlog.reset_defaults()


@pytest.fixture
def debian() -> Callable[[str], None]:
    """Return what a test calls with the package that it turns out to need."""
    return require
