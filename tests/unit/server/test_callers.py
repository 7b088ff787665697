import pytest
from aiohttp.test_utils import make_mocked_request

from bridge.domain.callers import OPEN_CALLER, Caller, Credential, hash_token
from bridge.errors import Forbidden, Unauthenticated
from bridge.server.callers import Callers, require

CI = Caller(name="ci", routes=("shop",), scopes=frozenset({"upload"}))
KNOWN = Credential(hash=hash_token("right-token"), caller=CI, not_after=100)


def request(**headers: str):
    return make_mocked_request("POST", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    "headers",
    [{"X_Auth_Token": "right-token"}, {"Authorization": "Bearer right-token"}, {"Authorization": "bearer right-token"}],
)
def test_a_token_is_known_in_either_header(headers):
    assert Callers([KNOWN]).identify(request(**headers), 99) == CI


@pytest.mark.parametrize(
    ("headers", "now", "fault"),
    [
        ({}, 0, "missing"),
        ({"Authorization": "Basic right-token"}, 0, "missing"),
        ({"X_Auth_Token": "right-toke"}, 0, "invalid"),
        ({"X_Auth_Token": "wrong", "Authorization": "Bearer right-token"}, 0, "invalid"),
        ({"X_Auth_Token": "right-token"}, 100, "invalid"),
    ],
    ids=["none", "another scheme", "nearly", "the first header counts", "ended"],
)
def test_a_stranger_is_told_only_that_the_token_is_missing_or_invalid(headers, now, fault):
    with pytest.raises(Unauthenticated) as caught:
        Callers([KNOWN]).identify(request(**headers), now)
    assert str(caught.value).startswith(f"Incorrect IAM authentication information: token is {fault}. ")
    assert "right" not in str(caught.value)


def test_where_everybody_may_call_a_known_token_still_names_its_caller():
    callers = Callers([KNOWN], open_to_all=True)
    assert callers.identify(request(), 0) == OPEN_CALLER
    assert callers.identify(request(X_Auth_Token="anything"), 0) == OPEN_CALLER
    assert callers.identify(request(X_Auth_Token="right-token"), 0) == CI


def test_a_scope_is_required_by_name():
    require(CI, "upload")
    with pytest.raises(Forbidden, match='"ci" lacks the scope "status"'):
        require(CI, "status")
