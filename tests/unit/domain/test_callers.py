import hashlib

import pytest

from bridge.domain.callers import OPEN_CALLER, AuthScheme, Caller, Credential, find_credential, hash_token

CI = Caller(scheme=AuthScheme.TOKEN, name="ci", routes=("shop",), scopes=frozenset({"upload"}))
OPS = Caller(scheme=AuthScheme.TOKEN, name="ops", routes=None, scopes=frozenset({"status"}))
KNOWN = (
    Credential(hash=hash_token("canary-ci"), caller=CI, expires_at=1_000),
    Credential(hash=hash_token("canary-ops"), caller=OPS),
)


def test_a_hash_is_the_sha256_of_the_token():
    assert hash_token("canary") == "sha256:" + hashlib.sha256(b"canary").hexdigest()


@pytest.mark.parametrize(
    ("token", "now", "caller"),
    [
        ("canary-ci", 999, CI),
        ("canary-ci", 1_000, None),
        ("canary-ops", 10**18, OPS),
        ("canary", 0, None),
        ("", 0, None),
        (hash_token("canary-ci"), 0, None),
        ("\udcff", 0, None),
    ],
)
def test_a_caller_is_found_by_a_token_that_is_still_good(token, now, caller):
    found = find_credential(token, KNOWN, now=now)
    assert (found.caller if found and found.is_valid(now) else None) == caller


def test_an_expired_token_does_not_hide_a_good_one_of_the_same_text():
    renewed = Credential(hash=hash_token("canary-ci"), caller=OPS)
    assert find_credential("canary-ci", (*KNOWN, renewed), now=2_000) == renewed
    assert find_credential("canary-ci", (renewed, *KNOWN), now=2_000) == renewed


def test_a_token_that_ended_is_still_known_as_one_of_ours():
    assert find_credential("canary-ci", KNOWN, now=1_000) == KNOWN[0]


def test_an_open_caller_uploads_to_any_route_and_asks_but_does_not_use_the_proxy():
    assert OPEN_CALLER.routes is None
    assert OPEN_CALLER.scopes == {"upload", "status"}
