"""What all tests share: Debian packages that a test may need."""

import os
import shutil
from collections.abc import Callable

import pytest

SERVERS = ("hypercorn", "granian")

# Packages whose program is called otherwise.
PROGRAMS = {"nghttp2-client": "h2load", "fonts-noto-cjk": "fc-list"}


def require(package: str) -> None:
    """Skip, loudly, the test that calls this when ``package`` is not installed."""
    if shutil.which(PROGRAMS.get(package, package)) is None:
        pytest.skip(f"needs a Debian package: apt-get install {package}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--http-server", choices=SERVERS, help="the HTTP server of each instance that tests start"
    )


def pytest_configure(config: pytest.Config) -> None:
    if server := config.getoption("--http-server"):
        os.environ["ATOMSERVE_SERVER"] = server


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("debian"):
        for package in marker.args:
            require(package)


@pytest.fixture
def debian() -> Callable[[str], None]:
    """Return what a test calls with the package that it turns out to need."""
    return require
