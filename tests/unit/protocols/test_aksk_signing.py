"""Our signatures against the official signer: each accepts what the other signs."""

from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import given
from hypothesis import strategies as st

from bridge.protocols.aksk_signing import (
    EMPTY_SHA256,
    MAX_SKEW_US,
    UNSIGNED_PAYLOAD,
    AccessKeyPair,
    Authorization,
    RawRequest,
    canonical_path,
    canonical_query,
    format_date,
    is_signed_with,
    is_timely,
    possible_payload_hashes,
    read_authorization,
    sign,
    signed_at,
)

KEY = AccessKeyPair(access_key="AKIDEXAMPLE", secret_key="sk-canary/+=")
AT = int(datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC).timestamp()) * 1_000_000
JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
PATH = f"/v1/job/{JOB}/61/build-info"
HEADERS = {"Host": "cloudbuild-ext.example:8443", "X-Sdk-Date": "20260504T030201Z", "X-Project-Id": "p" * 32}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc"]), max_size=12)


def officially_signed(*, method="GET", path=PATH, query=(), headers=None, body=b""):
    request = SdkRequest(
        method=method,
        schema="https",
        host=HEADERS["Host"],
        resource_path=path,
        query_params=list(query),
        header_params=dict(HEADERS if headers is None else headers),
        body=body,
    )
    return Signer(BasicCredentials(KEY.access_key, KEY.secret_key)).sign(request)


def on_the_wire(signed, *, headers=None):
    """Return a request of the SDK as a server reads it: header bytes as UTF-8, path and query quoted."""
    path, _, query = signed.uri.partition("?")
    received = {name: value.encode("iso-8859-1").decode() for name, value in signed.header_params.items()}
    return RawRequest(
        method=signed.method, path=quote(path, safe="/~%"), query=query, headers=tuple((headers or received).items())
    )


def verified(request, *, body=b"", secret_key=KEY.secret_key):
    authorization = read_authorization(request.values("Authorization")[0])
    return is_signed_with(request, authorization, secret_key, sha256(body).hexdigest())


@given(
    method=st.sampled_from(["GET", "put", "POST", "DELETE"]),
    segments=st.lists(texts, max_size=4),
    query=st.lists(st.tuples(texts, texts), max_size=5),
    extra=st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True), values, max_size=4),
    body=st.binary(max_size=40),
)
def test_whatever_the_official_signer_signs_is_verified_and_signed_alike(method, segments, query, extra, body):
    path = "/" + "/".join(quote(segment, safe="~") for segment in segments)
    named = {name.lower(): (name, value) for name, value in (extra | HEADERS).items()}
    named.pop("content-type", None)
    headers = dict(named.values())

    signed = officially_signed(method=method, path=path, query=query, headers=headers, body=body)

    request = on_the_wire(signed)
    assert verified(request, body=body)
    before = tuple((name, value) for name, value in headers.items() if name != "X-Sdk-Date")
    bare = RawRequest(method=method, path=request.path, query=request.query, headers=before)
    ours = dict(sign(bare, KEY, at=AT, payload_sha256=sha256(body).hexdigest()))
    assert ours["Authorization"] == signed.header_params["Authorization"]


@pytest.mark.parametrize("body", [b"--x\r\n", b""], ids=["a body", "an empty body"])
def test_a_body_that_is_not_json_is_signed_unread(body):
    headers = HEADERS | {"Content-Type": "multipart/form-data; boundary=x"}

    request = on_the_wire(officially_signed(method="POST", headers=headers, body=body))

    assert request.values("X-Sdk-Content-Sha256") == [UNSIGNED_PAYLOAD]
    assert verified(request, body=body)


def test_an_unsigned_body_verifies_before_it_is_read_and_a_hashed_one_does_not():
    unsigned = on_the_wire(officially_signed(headers=HEADERS | {"Content-Type": "text/xml"}, body=b"<a/>"))
    hashed = on_the_wire(officially_signed(headers=HEADERS | {"Content-Type": "application/json"}, body=b"{}"))

    for request, expected in ((unsigned, True), (hashed, False)):
        authorization = read_authorization(request.values("Authorization")[0])
        assert is_signed_with(request, authorization, KEY.secret_key) is expected


def test_our_unsigned_payload_is_the_official_one():
    headers = {"Host": HEADERS["Host"], "Content-Type": "application/octet-stream"}
    theirs = officially_signed(method="POST", headers=headers | {"X-Sdk-Date": HEADERS["X-Sdk-Date"]}, body=b"anything")

    raw = RawRequest(method="POST", path=PATH, headers=tuple(headers.items()))
    ours = dict(sign(raw, KEY, at=AT, payload_sha256=UNSIGNED_PAYLOAD))

    assert ours["Authorization"] == theirs.header_params["Authorization"]
    assert ours["X-Sdk-Content-Sha256"] == UNSIGNED_PAYLOAD


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"path": PATH.replace("61", "62")},
        {"query": "build_no=1"},
        {"headers": {"Host": "elsewhere.example"}},
        {"headers": {"X-Sdk-Date": "20260504T030202Z"}},
        {"headers": {"X-Project-Id": "q" * 32}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_nothing_that_is_signed_can_be_changed(changes):
    signed = officially_signed()
    request = on_the_wire(signed, headers=dict(signed.header_params) | changes.get("headers", {}))
    changed = RawRequest(
        method=changes.get("method", request.method),
        path=changes.get("path", request.path),
        query=changes.get("query", request.query),
        headers=request.headers,
    )

    assert verified(on_the_wire(signed))
    assert not verified(changed)


def test_another_body_and_another_key_are_rejected():
    request = on_the_wire(officially_signed(headers=HEADERS | {"Content-Type": "application/json"}, body=b'{"a":1}'))

    assert verified(request, body=b'{"a":1}')
    assert not verified(request, body=b'{"a":2}')
    assert not verified(request, body=b'{"a":1}', secret_key="another")


def test_a_body_that_was_announced_by_its_digest_must_be_that_body():
    announced = HEADERS | {"Content-Type": "application/json", "X-Sdk-Content-Sha256": sha256(b"{}").hexdigest()}
    request = on_the_wire(officially_signed(headers=announced, body=b"{}"))

    assert verified(request, body=b"{}")
    assert not verified(request, body=b"[]")


def test_a_header_that_says_unsigned_opens_nothing_that_was_hashed():
    signed = officially_signed(headers=HEADERS | {"Content-Type": "application/json"}, body=b"{}")
    request = on_the_wire(signed)
    smuggled = RawRequest(
        method=request.method,
        path=request.path,
        headers=(*request.headers, ("X-Sdk-Content-Sha256", UNSIGNED_PAYLOAD)),
    )

    assert not verified(smuggled, body=b"changed")


@pytest.mark.parametrize("twice", ["Host", "X-Sdk-Date"])
def test_a_signed_header_that_stands_twice_is_never_verified(twice):
    request = on_the_wire(officially_signed())
    doubled = RawRequest(
        method=request.method, path=request.path, headers=(*request.headers, (twice, request.values(twice)[0]))
    )

    assert not verified(doubled)


def test_a_header_that_is_not_signed_may_be_added_on_the_way():
    request = on_the_wire(officially_signed())
    passed = RawRequest(method=request.method, path=request.path, headers=(*request.headers, ("Via", "1.1 proxy")))

    assert verified(passed)


def test_a_header_with_an_underscore_is_left_out_as_the_official_signer_does():
    headers = {"Host": HEADERS["Host"], "x_odd": "1"}
    theirs = officially_signed(headers=headers | {"X-Sdk-Date": HEADERS["X-Sdk-Date"]})

    ours = dict(sign(RawRequest(method="GET", path=PATH, headers=tuple(headers.items())), KEY, at=AT))

    assert ours["Authorization"] == theirs.header_params["Authorization"]


def test_a_temporary_key_sends_its_security_token_and_signs_it():
    key = AccessKeyPair(access_key="A", secret_key="s", security_token="st-canary")

    headers = dict(sign(RawRequest(method="GET", path="/", headers=(("Host", "h"),)), key, at=AT))

    assert headers["X-Security-Token"] == "st-canary"
    assert "x-security-token" in read_authorization(headers["Authorization"]).signed_headers


def test_what_stands_twice_cannot_be_signed():
    with pytest.raises(ValueError, match="twice"):
        sign(RawRequest(method="GET", path="/", headers=(("Host", "a"), ("host", "b"))), KEY, at=AT)


def test_a_key_does_not_show_itself():
    assert "canary" not in repr(AccessKeyPair(access_key="A", secret_key="sk-canary", security_token="st-canary"))


@pytest.mark.parametrize(
    ("skew_us", "timely"),
    [(0, True), (MAX_SKEW_US, True), (-MAX_SKEW_US, True), (MAX_SKEW_US + 1, False), (-MAX_SKEW_US - 1, False)],
)
def test_a_signature_holds_for_a_quarter_of_an_hour_either_way(skew_us, timely):
    assert is_timely(RawRequest(method="GET", path="/", headers=tuple(HEADERS.items())), AT + skew_us) is timely


@pytest.mark.parametrize(
    "date", ["", "2026-05-04T03:02:01Z", "20260504T030201", "20261304T030201Z", "２0260504T030201Z"]
)
def test_what_is_no_date_was_signed_at_no_time(date):
    request = RawRequest(method="GET", path="/", headers=(("X-Sdk-Date", date),))

    assert signed_at(request) is None
    assert not is_timely(request, AT)


def test_dates_are_read_as_they_are_written():
    assert signed_at(RawRequest(method="GET", path="/", headers=(("x-sdk-date", format_date(AT)),))) == AT


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer x",
        "SDK-HMAC-SHA256",
        "SDK-HMAC-SM3 Access=a, SignedHeaders=x-sdk-date, Signature=" + "0" * 64,
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature=" + "0" * 64,
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=x-sdk-date;x-sdk-date, Signature=" + "0" * 64,
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=x-sdk-date, Signature=" + "0" * 63,
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=x-sdk-date, Signature=" + "0" * 64 + ", More=1",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=" + "a;" * 9000 + "x-sdk-date, Signature=" + "0" * 64,
    ],
)
def test_what_is_no_authorization_of_this_kind_is_not_read(value):
    assert read_authorization(value) is None


def test_an_authorization_is_read_whatever_the_blanks_and_case():
    value = f"SDK-HMAC-SHA256  Access=AK,SignedHeaders=Host;X-Sdk-Date,   Signature={'AB' * 32}"

    assert read_authorization(value) == Authorization(
        access_key="AK", signed_headers=("host", "x-sdk-date"), signature="ab" * 32
    )


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/", "/"),
        ("", "/"),
        ("/a", "/a/"),
        ("/a/", "/a/"),
        ("/a%2Fb", "/a/b/"),
        ("/a//b", "/a//b/"),
        ("/a+b c", "/a%2Bb%20c/"),
        ("/%7e%E4%BD%A0", "/~%E4%BD%A0/"),
    ],
)
def test_paths_are_signed_in_one_form(path, canonical):
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("b=2&a=1", "a=1&b=2"),
        ("a", "a="),
        ("a=", "a="),
        ("&&a=1&", "a=1"),
        ("a=b=c", "a=b%3Dc"),
        ("a=2&a=1", "a=1&a=2"),
        ("a=b+c", "a=b%2Bc"),
        ("a=b%20c", "a=b%20c"),
    ],
)
def test_queries_are_signed_in_one_form(query, canonical):
    assert canonical_query(query) == canonical


def test_two_announcements_of_the_body_leave_no_way_to_verify_it():
    headers = (("X-Sdk-Content-Sha256", UNSIGNED_PAYLOAD), ("x-sdk-content-sha256", EMPTY_SHA256))

    assert possible_payload_hashes(RawRequest(method="GET", path="/", headers=headers), EMPTY_SHA256) == ()
