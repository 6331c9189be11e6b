"""How a surface's requests become jobs: whose they are, what their heads say."""

from __future__ import annotations

from typing import Any

import pytest
from one_worker import instance

from atomserve.engine.jobs import Payload
from atomserve.errors import BadRequest, UnsupportedMedia
from atomserve.guard.client import Client
from atomserve.surfaces.requests import Entry, Head

WHO = """
from atomserve import Wrapper, current


class It(Wrapper):
    def predict(self) -> list[str]:
        context = current()
        return [context.model, context.request_id, context.tenant, context.headers["x-a"]]
"""


@pytest.mark.anyio
@pytest.mark.parametrize(("tenant_header", "tenant"), [("", ""), ("x-org", "acme"), ("x-no", "")])
async def test_a_wrapper_is_told_who_asks(tmp_path: Any, tenant_header: str, tenant: str) -> None:
    (tmp_path / "it.py").write_text(WHO)
    client = Client()
    client.request_id = "r-1"
    raw = [(b"x-a", b"1"), (b"X-Org", b"acme")]
    scope = {"type": "http", "atomserve.client": client, "headers": raw}
    async with instance(tmp_path / "it.py") as it:
        entry = Entry(it.model, "/here", tenant_header=tenant_header)
        assert entry.client(scope) is client
        assert (client.model, client.route) == ("it", "/here")
        answer = await entry.call(Payload(body=b"{}"), Head(raw), client).answer()
    assert bytes(answer.body) == b'["it","r-1","%b","1"]' % tenant.encode()


def test_a_head_says_what_is_sent_and_what_is_wanted() -> None:
    head = Head(
        [
            (b"accept", b"image/png"),
            (b"content-type", b"application/json"),
            (b"accept", b"*/*"),
            (b"content-length", b"7"),
            (b"request-timeout", b"2.5"),
            (b"content-encoding", b"Identity"),
        ]
    )
    assert (head.accept, head.content_type) == ("image/png,*/*", "application/json")
    assert (head.length, head.wait) == (7, 2.5)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        (b"content-encoding", b"gzip", UnsupportedMedia),
        (b"request-timeout", b"soon", BadRequest),
        (b"request-timeout", b"-1", BadRequest),
    ],
)
def test_a_header_at_fault_is_refused(name: bytes, value: bytes, error: Any) -> None:
    with pytest.raises(error):
        Head([(name, value)])
