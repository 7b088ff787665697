from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bridge.sandbox.presign import Keys, check, presign

KEYS = Keys(access_key="SANDBOXACCESSKEY", secret_key="canary-secret", region="cn-north-4")
AT = 1_700_000_000_000_000
URL = "http://127.0.0.1:9000/bucket/project/42/1.xml"
SECOND = 1_000_000


def target_of(url):
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def signed(**metadata):
    return target_of(presign(KEYS, URL, metadata=metadata, at=AT, expires_seconds=300))


def denial(target, headers=None, *, keys=KEYS, at=AT):
    found = check(keys, target, {"host": "127.0.0.1:9000", **(headers or {})}, at=at)
    return None if found is None else (found.status, found.code)


def test_a_url_is_good_from_the_moment_it_was_signed_until_it_expires():
    assert denial(signed()) is None
    assert denial(signed(), at=AT + 300 * SECOND) is None
    assert denial(signed(), at=AT + 300 * SECOND + 1) == (403, "AccessDenied")


def test_an_expired_url_says_so():
    found = check(KEYS, signed(), {"host": "127.0.0.1:9000"}, at=AT + 301 * SECOND)
    assert found.message == "Request has expired"
    assert found.extra["Expires"] == "2023-11-14T22:18:20Z"


def test_a_url_from_far_in_the_future_is_not_valid_yet():
    assert denial(signed(), at=AT - 900 * SECOND) is None
    assert denial(signed(), at=AT - 901 * SECOND) == (403, "AccessDenied")


def test_metadata_stands_in_the_query_and_only_host_is_signed():
    target = signed(name="a b/ü")
    assert "x-amz-meta-name=a%20b%2F%C3%BC" in target
    assert "X-Amz-SignedHeaders=host&" in target
    assert denial(target) is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("/42/1.xml", "/42/2.xml", (403, "SignatureDoesNotMatch")),
        ("X-Amz-Expires=300", "X-Amz-Expires=900", (403, "SignatureDoesNotMatch")),
        ("x-amz-meta-name=a", "x-amz-meta-name=b", (403, "SignatureDoesNotMatch")),
        ("X-Amz-Signature=", "X-Amz-Signature=0", (403, "SignatureDoesNotMatch")),
        ("SANDBOXACCESSKEY", "SOMEOTHERKEY", (403, "InvalidAccessKeyId")),
        ("cn-north-4", "cn-north-1", (400, "AuthorizationQueryParametersError")),
        ("X-Amz-Expires=300", "X-Amz-Expires=604801", (400, "AuthorizationQueryParametersError")),
        ("X-Amz-Expires=300", "X-Amz-Expires=soon", (400, "AuthorizationQueryParametersError")),
        ("X-Amz-Date=2023", "X-Amz-Date=year", (400, "AuthorizationQueryParametersError")),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&", "", (400, "AuthorizationQueryParametersError")),
    ],
)
def test_a_url_that_was_changed_is_rejected(old, new, expected):
    target = signed(name="a")
    assert old in target
    assert denial(target.replace(old, new, 1)) == expected


def test_another_host_is_another_signature():
    assert denial(signed(), {"host": "example.test"}) == (403, "SignatureDoesNotMatch")


def test_a_url_signed_with_another_secret_is_rejected():
    other = Keys(access_key=KEYS.access_key, secret_key="another", region=KEYS.region)
    assert denial(signed(), keys=other) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("name", ["x-amz-acl", "X-Amz-Meta-Name", "x-amz-content-sha256"])
def test_an_amz_header_that_was_not_signed_is_rejected_by_its_name(name):
    found = check(KEYS, signed(), {"host": "127.0.0.1:9000", name: "value"}, at=AT)
    assert (found.status, found.code, found.extra) == (403, "AccessDenied", {"HeadersNotSigned": name.lower()})


def test_a_path_without_a_signature_is_denied():
    assert denial("/bucket/key") == (403, "AccessDenied")


@pytest.mark.parametrize("path", ["/bucket/key", "/bucket/a%20b/%C3%BC.xml", "/bucket/a//b/../c"])
def test_what_botocore_signs_by_its_own_clock_is_accepted(path):
    request = AWSRequest(method="PUT", url=f"http://127.0.0.1:9000{path}")
    S3SigV4QueryAuth(Credentials(KEYS.access_key, KEYS.secret_key), "s3", KEYS.region, expires=300).add_auth(request)
    clock = int(signed_at(request.url).timestamp()) * SECOND
    assert denial(target_of(request.url), at=clock) is None


def signed_at(url):
    return datetime.strptime(parse_qs(urlsplit(url).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def test_keys_do_not_print_their_secret():
    assert "canary-secret" not in repr(KEYS)
