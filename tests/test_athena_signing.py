"""Signed requests are taken, and nothing else is."""

import base64
import hashlib
import hmac
import json
import random
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atomserve.codecs.athena.errors import AppRefused
from atomserve.errors import AtomError
from atomserve.surfaces.athena.signing import (
    Asked,
    Key,
    Signed,
    Unsigned,
    check_app,
    check_digest,
    check_signature,
    refused,
)

NOW = 1_700_000_000.0
SECRET = "a canary of a secret"
KEYS = {"k1": Key(SECRET, "a1"), "k2": Key("other")}
PATH = "/v1/private/demo"


@dataclass(frozen=True)
class Client:
    """Signs as the published clients do, in its own words."""

    method: str = "POST"
    path: str = PATH
    host: str = "api.example.com"
    date: str = formatdate(NOW, usegmt=True)
    api_key: str = "k1"
    secret: str = SECRET
    algorithm: str = "hmac-sha256"
    names: str = "host date request-line"
    digest: str = ""

    def authorization(self) -> str:
        lines = {
            "host": f"host: {self.host}",
            "date": f"date: {self.date}",
            "request-line": f"{self.method} {self.path} HTTP/1.1",
            "digest": f"digest: {self.digest}",
        }
        text = "\n".join(lines.get(name.lower(), f"{name}: x") for name in self.names.split())
        made = hmac.new(self.secret.encode(), text.encode(), self.hash).digest()
        return (
            f'api_key="{self.api_key}", algorithm="{self.algorithm}", '
            f'headers="{self.names}", signature="{base64.b64encode(made).decode()}"'
        )

    @property
    def hash(self) -> Any:
        return {"hmac-sha512": hashlib.sha512}.get(self.algorithm, hashlib.sha256)

    def in_query(self, **more: str) -> Asked:
        encoded = base64.b64encode(self.authorization().encode()).decode()
        query = {"host": self.host, "date": self.date, "authorization": encoded} | more
        headers = {"host": "api.example.com"}
        if self.digest:
            headers["digest"] = self.digest
        return Asked(self.method, self.path, urlencode(query), headers)

    def in_headers(self, scheme: str = "") -> Asked:
        headers = {
            "host": self.host,
            "date": self.date,
            "authorization": scheme + self.authorization(),
        }
        return Asked(self.method, self.path, "", headers)


def check(asked: Asked, **options: Any) -> Signed:
    return check_signature(asked, KEYS, NOW, **options)


def refusal(asked: Asked, **options: Any) -> tuple[int, str]:
    with pytest.raises(Unsigned) as caught:
        check(asked, **options)
    status, body = refused(caught.value)
    return status, json.loads(body)["message"]


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_request_signed_in_its_query_is_its_keys(method: str) -> None:
    assert check(Client(method=method).in_query()) == Signed("k1", "a1")


@pytest.mark.parametrize("scheme", ["", "hmac "])
def test_a_request_signed_in_its_headers_is_its_keys(scheme: str) -> None:
    assert check(Client().in_headers(scheme)) == Signed("k1", "a1")


def test_a_signature_that_was_made_elsewhere_holds() -> None:
    # printf 'host: h\ndate: Tue, 14 Nov 2023 22:13:20 GMT\nPOST /p HTTP/1.1' |
    #   openssl dgst -sha256 -hmac s3cret -binary | base64
    text = (
        'api_key="k", algorithm="hmac-sha256", headers="host date request-line", '
        'signature="lAEqjY/Pfm44bdUXNIrcGswCND93HiOm12YxLHqgkPE="'
    )
    query = urlencode(
        {
            "host": "h",
            "date": "Tue, 14 Nov 2023 22:13:20 GMT",
            "authorization": base64.b64encode(text.encode()),
        }
    )
    asked = Asked("POST", "/p", query, {"host": "h"})
    assert check_signature(asked, {"k": Key("s3cret")}, NOW) == Signed("k", "")


@pytest.mark.parametrize(
    "client",
    [
        Client(algorithm="hmac-sha512"),
        Client(names="Host Date Request-Line"),
        Client(names="request-line date host"),
        Client(date="Tue, 14 Nov 2023 22:13:20 UTC"),
        Client(date="Tue, 14 Nov 2023 22:13:20 -0000"),
        Client(date=formatdate(NOW - 299, usegmt=True)),
        Client(date=formatdate(NOW + 299, usegmt=True)),
        Client(host="API.example.com"),
        Client(api_key="k2", secret="other"),
    ],
    ids=str,
)
def test_what_clients_vary_is_taken(client: Client) -> None:
    assert check(client.in_query()).api_key == client.api_key


def test_a_server_of_several_names_takes_each() -> None:
    asked = Client(host="public.example.com").in_query()
    assert refusal(asked)[0] == 401
    assert check(asked, hosts=["Public.example.com"]).api_key == "k1"


def test_a_query_of_very_many_fields_is_not_read() -> None:
    asked = Client().in_query(**{f"x{number}": "" for number in range(100)})
    assert refusal(asked) == UNVERIFIABLE


def test_a_request_without_a_signature_is_told_so() -> None:
    asked = Asked("POST", PATH, "", {"host": "api.example.com"})
    assert refusal(asked) == (401, "Unauthorized")


UNVERIFIABLE = (401, "HMAC signature cannot be verified")
MISMATCH = (401, "HMAC signature does not match")
UNTIMELY = (
    403,
    "HMAC signature cannot be verified, a valid date or x-date header is required "
    "for HMAC Authentication",
)


@pytest.mark.parametrize(
    "client",
    [
        Client(api_key="k3"),
        Client(algorithm="hmac-md5"),
        Client(names="host date"),
        Client(names="date request-line"),
        Client(names="host request-line"),
        Client(names=""),
        Client(names="host date request-line x-absent"),
        Client(names="host date request-line digest"),
        Client(host="evil.example.com"),
    ],
    ids=str,
)
def test_a_signature_that_covers_too_little_cannot_be_verified(client: Client) -> None:
    assert refusal(client.in_query()) == UNVERIFIABLE


@pytest.mark.parametrize("text", ["", "%", "!!!", "aGVsbG8", "//8=", "x" * 5000])
def test_an_authorization_that_cannot_be_read_is_refused(text: str) -> None:
    status, _ = refusal(Client().in_query(authorization=text))
    assert status == 401


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"path": PATH + "x"},
        {"path": PATH + "?a=b"},
    ],
)
def test_a_signature_cannot_be_moved_to_another_request(change: dict[str, str]) -> None:
    asked = Client().in_query()
    other = Asked(
        change.get("method", asked.method),
        change.get("path", asked.path),
        asked.query,
        asked.headers,
    )
    assert refusal(other) == MISMATCH


def test_a_signature_cannot_be_moved_to_another_time() -> None:
    later = formatdate(NOW + 100, usegmt=True)
    assert refusal(Client().in_query(date=later)) == MISMATCH


def test_a_wrong_secret_does_not_match() -> None:
    assert refusal(Client(secret="guess").in_query()) == MISMATCH


@pytest.mark.parametrize("seconds", [-301, 301, -1e9, 3e9])
def test_another_time_than_the_servers_is_refused(seconds: float) -> None:
    assert refusal(Client(date=formatdate(NOW + seconds, usegmt=True)).in_query()) == UNTIMELY


@pytest.mark.parametrize(
    "date",
    ["", "yesterday", "Tue, 99 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 99999 22:13:20 GMT", "0"],
)
def test_a_date_that_is_none_is_refused(date: str) -> None:
    assert refusal(Client(date=date).in_query()) == UNTIMELY


def test_a_line_feed_in_a_value_is_no_line_of_its_own() -> None:
    line = "api.example.com\ndate: x"
    client = Client(host=line)
    assert refusal(client.in_query(), hosts=[line]) == UNVERIFIABLE


def test_a_signed_digest_is_of_the_body() -> None:
    body = b'{"header":{}}'
    digest = "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode()
    names = "host date request-line digest"
    signed = check(Client(names=names, digest=digest).in_query())
    check_digest(signed, body)
    check_digest(signed, memoryview(body))
    with pytest.raises(Unsigned, match="does not match"):
        check_digest(signed, body + b" ")


def test_a_body_that_was_not_signed_may_be_any() -> None:
    check_digest(check(Client().in_query()), b"whatever")


def test_a_key_is_for_its_application() -> None:
    signed = check(Client().in_query())
    check_app(signed, "a1")
    for other in ("a2", "", "a1 "):
        with pytest.raises(AppRefused, match="invalid appid"):
            check_app(signed, other)


def test_a_key_may_be_for_any_application() -> None:
    check_app(check(Client(api_key="k2", secret="other").in_query()), "whatever")


def test_the_secret_is_shown_nowhere() -> None:
    assert SECRET not in repr(KEYS)
    with pytest.raises(AtomError) as caught:
        check(Client(secret="guess").in_query())
    assert SECRET not in repr(caught.value.args)
    assert SECRET not in repr(check(Client().in_query()))


def test_any_flip_of_a_signed_request_is_refused() -> None:
    dice = random.Random(7)
    good = Client().in_headers()
    text = good.headers["authorization"]
    start = text.index('signature="') + len('signature="')
    for place in range(start, len(text) - 2):  # the last character is padding
        other = dice.choice([c for c in "ABCabc019+/" if c != text[place]])
        flipped = f"{text[:place]}{other}{text[place + 1 :]}"
        headers = {**good.headers, "authorization": flipped}
        assert refusal(Asked(good.method, good.path, "", headers)) == MISMATCH


words = st.text(max_size=60)


@settings(deadline=None)
@given(words, words, words, words, st.dictionaries(st.sampled_from(["host", "date"]), words))
def test_whatever_is_not_signed_is_refused(
    authorization: str, date: str, host: str, rest: str, headers: dict[str, str]
) -> None:
    encoded = base64.b64encode(authorization.encode()).decode()
    query = urlencode({"authorization": encoded, "date": date, "host": host}) + "&" + rest
    refusal(Asked("POST", PATH, query, headers))
    refusal(Asked("POST", PATH, rest, {**headers, "authorization": authorization}))


@settings(deadline=None)
@given(st.sampled_from(["date", "host", "api_key", "algorithm", "names"]), words)
def test_whatever_part_is_wrong_it_is_refused(part: str, text: str) -> None:
    assume(text not in (getattr(Client(), part), "hmac-sha512"))
    assume(set(text.lower().split()) != set(Client().names.split()))
    refusal(replace(Client(), **{part: text}).in_query())
