import asyncio
from dataclasses import replace

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.callers import OPEN_CALLER, AccessKey, AuthScheme, Caller, Credential, hash_token
from bridge.errors import Forbidden, Unauthenticated
from bridge.server.auth.authenticator import INVALID, MISSING, SEVERAL, UNEXPANDED, Authenticator, require
from bridge.server.auth.signatures import Lockout, SignatureVerifier
from bridge.telemetry.redaction import Redactor

NOW = 1_700_000_000_000_000
CI = Caller(scheme=AuthScheme.TOKEN, name="ci", routes=("shop",), scopes=frozenset({"upload"}))
KNOWN = Credential(hash=hash_token("right-token"), caller=CI, expires_at=100)


def request(**headers: str):
    return make_mocked_request("POST", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})


async def caller_of(callers, **headers):
    return (await callers.identify(request(**headers))).caller


@pytest.mark.parametrize(
    "headers",
    [{"X_Auth_Token": "right-token"}, {"Authorization": "Bearer right-token"}, {"Authorization": "bearer right-token"}],
)
async def test_a_token_is_known_in_either_header(headers):
    assert await caller_of(Authenticator([KNOWN], now=lambda: 99), **headers) == CI


@pytest.mark.parametrize(
    ("headers", "now", "fault"),
    [
        ({}, 0, "x-auth-token not found"),
        ({"Authorization": "Basic right-token"}, 0, "x-auth-token not found"),
        ({"X_Auth_Token": "right-toke"}, 0, "decrypt token fail"),
        ({"X_Auth_Token": "wrong", "Authorization": "Bearer right-token"}, 0, "decrypt token fail"),
        ({"X_Auth_Token": "${BRIDGE_TOKEN}"}, 0, "a variable that was not expanded"),
        ({"X_Auth_Token": "right-toke"}, 100, "decrypt token fail"),
    ],
    ids=["none", "another scheme", "nearly", "the first header counts", "a variable", "nearly one that ended"],
)
async def test_a_stranger_is_told_only_whether_there_was_a_token(headers, now, fault):
    with pytest.raises(Unauthenticated) as caught:
        await caller_of(Authenticator([KNOWN], now=lambda: now), **headers)
    assert fault in str(caught.value)
    assert not any(word in str(caught.value) for word in ("right", "expired", '"ci"', "BRIDGE_TOKEN"))


async def test_a_caller_with_an_expired_token_learns_that_it_expired_and_when():
    known = replace(KNOWN, expires_at=NOW)
    with pytest.raises(Unauthenticated) as caught:
        await caller_of(Authenticator([known], now=lambda: NOW), X_Auth_Token="right-token")
    assert str(caught.value).startswith('The token of the caller "ci" expired on 2023-11-14. ')
    assert caught.value.reason == "expired_token"


async def test_where_everybody_may_call_a_known_token_still_names_its_caller():
    callers = Authenticator([KNOWN], now=lambda: 0, open_to_all=True)
    assert await caller_of(callers) == OPEN_CALLER
    assert await caller_of(callers, X_Auth_Token="anything") == OPEN_CALLER
    assert await caller_of(callers, X_Auth_Token="right-token") == CI


def test_a_scope_is_required_by_name():
    require(CI, "upload")
    with pytest.raises(Forbidden, match='"ci" lacks the scope "status"'):
        require(CI, "status")


_HEADERS = ["Authorization", "X-Auth-Token", "X-Sdk-Date", "X-Sdk-Content-Sha256", "Host", "X-Project-Id"]
_LATIN1 = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
_SIGNED = st.builds(
    "SDK-HMAC-SHA256 Access={}, SignedHeaders={}, Signature={}".format,
    st.sampled_from(["ACCESSKEY", "other", ""]),
    st.sampled_from(["host;x-sdk-date", "x-sdk-date", "", ";;", "host;host"]) | _LATIN1,
    st.sampled_from(["0" * 64, "", "g" * 64]) | _LATIN1,
)
_VALUES = _LATIN1 | _SIGNED | st.sampled_from(["20231114T221320Z", "UNSIGNED-PAYLOAD", "Bearer x", "Bearer "])


@given(headers=st.dictionaries(st.sampled_from(_HEADERS), _VALUES), path=st.sampled_from(["/", "/a?b=%zz", "//x?&&="]))
def test_what_a_request_states_of_its_sender_identifies_no_caller_without_a_secret(headers, path):
    key = AccessKey(access_key="ACCESSKEY", secret_key="never-guessed", caller=CI)
    signatures = SignatureVerifier([key], now=lambda: NOW, lockout=Lockout(lambda: NOW), record_use=None)
    callers = Authenticator([KNOWN], now=lambda: NOW, signatures=signatures)

    async def call():
        identity = await callers.identify(make_mocked_request("POST", path, headers=headers))
        identity.body.feed(b"body")
        await identity.body.finish()

    with pytest.raises(Unauthenticated):
        asyncio.run(call())


@pytest.mark.parametrize("text", [MISSING, SEVERAL, INVALID, UNEXPANDED])
def test_no_message_looks_like_a_secret_to_the_log(text):
    assert Redactor().text(text) == text
