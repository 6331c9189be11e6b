"""HTTP calls that end after 30 s unless told otherwise, both sides logged."""

import time
from typing import Any

import requests

from atomserve.compat.linker_atom.shim.linker_atom.lib.log import logger
from atomserve.telemetry.shown import shown_call

TIMEOUT = 30
_MOST_READ = 64 * 1024
"""Bytes of an answer that is read for the log."""


def request(url: str, method: str, **kwargs: Any) -> requests.Response:
    """Call ``url``; raises what `requests` raises."""
    kwargs.setdefault("timeout", TIMEOUT)
    asked = shown_call(url, kwargs)
    where = {"url": asked["url"], "method": method}
    logger.debug({"_prefix": ">>>Request Summary", **where, **asked})
    began = time.perf_counter()
    facts: dict[str, Any] = {}
    try:
        response = requests.request(method=method, url=url, **kwargs)
        facts = _facts(response, streamed=bool(kwargs.get("stream")))
        return response
    except requests.RequestException as exc:
        facts = {"error": type(exc).__name__}
        raise
    finally:
        took = round((time.perf_counter() - began) * 1000, 3)
        end = {"_prefix": "<<<Response Summary", **where, **facts, "duration": f"{took}ms"}
        logger.debug(end)


def get(url: str, **kwargs: Any) -> requests.Response:
    """Call ``url`` by GET."""
    return request(url, method="get", **kwargs)


def post(url: str, **kwargs: Any) -> requests.Response:
    """Call ``url`` by POST."""
    return request(url, method="post", **kwargs)


def _facts(response: requests.Response, *, streamed: bool) -> dict[str, Any]:
    """Return what the log tells of an answer; one that is streamed is left to its reader."""
    facts: dict[str, Any] = {"status": response.status_code}
    if streamed or len(response.content) > _MOST_READ:
        return facts
    try:
        facts["response"] = response.json()
    except ValueError:  # it is no JSON
        facts["size"] = len(response.content)
    return facts
