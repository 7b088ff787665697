import pytest
from aiohttp.test_utils import make_mocked_request

from bridge.domain.callers import OPEN_CALLER, Caller, Credential, Scheme, hash_token
from bridge.errors import Forbidden, Unauthenticated
from bridge.server.callers import Callers, require

CI = Caller(scheme=Scheme.TOKEN, name="ci", routes=("shop",), scopes=frozenset({"upload"}))
KNOWN = Credential(hash=hash_token("right-token"), caller=CI, not_after=100)


def request(**headers: str):
    return make_mocked_request("POST", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})


async def caller_of(callers, **headers):
    return (await callers.identify(request(**headers))).caller


@pytest.mark.parametrize(
    "headers",
    [{"X_Auth_Token": "right-token"}, {"Authorization": "Bearer right-token"}, {"Authorization": "bearer right-token"}],
)
async def test_a_token_is_known_in_either_header(headers):
    assert await caller_of(Callers([KNOWN], now=lambda: 99), **headers) == CI


@pytest.mark.parametrize(
    ("headers", "now", "fault"),
    [
        ({}, 0, "x-auth-token not found"),
        ({"Authorization": "Basic right-token"}, 0, "x-auth-token not found"),
        ({"X_Auth_Token": "right-toke"}, 0, "decrypt token fail"),
        ({"X_Auth_Token": "wrong", "Authorization": "Bearer right-token"}, 0, "decrypt token fail"),
        ({"X_Auth_Token": "right-token"}, 100, "decrypt token fail"),
    ],
    ids=["none", "another scheme", "nearly", "the first header counts", "ended"],
)
async def test_a_stranger_is_told_only_whether_there_was_a_token(headers, now, fault):
    with pytest.raises(Unauthenticated) as caught:
        await caller_of(Callers([KNOWN], now=lambda: now), **headers)
    assert str(caught.value).startswith(f"Incorrect IAM authentication information: {fault}. ")
    assert "right" not in str(caught.value)


async def test_where_everybody_may_call_a_known_token_still_names_its_caller():
    callers = Callers([KNOWN], now=lambda: 0, open_to_all=True)
    assert await caller_of(callers) == OPEN_CALLER
    assert await caller_of(callers, X_Auth_Token="anything") == OPEN_CALLER
    assert await caller_of(callers, X_Auth_Token="right-token") == CI


def test_a_scope_is_required_by_name():
    require(CI, "upload")
    with pytest.raises(Forbidden, match='"ci" lacks the scope "status"'):
        require(CI, "status")
