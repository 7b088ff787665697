import pytest
from aiohttp.test_utils import make_mocked_request

from bridge.server.admin.identification import COOKIE, session_cookie
from tests.support.calls import calls_of


def request(*cookies: str):
    return make_mocked_request("GET", "/", headers={"Cookie": "; ".join(cookies)})


@pytest.mark.parametrize(
    ("cookies", "found"),
    [
        ([f"{COOKIE}=a-B_1"], "a-B_1"),
        (["theme=dark", f"{COOKIE}=a-B_1", "a=b"], "a-B_1"),
        ([f"{COOKIE}=a.b"], ""),
        ([f'{COOKIE}="a"'], ""),
        ([f"x{COOKIE}=a"], ""),
        ([f"{COOKIE}=", f"{COOKIE}x=a"], ""),
        ([], ""),
    ],
)
def test_the_cookie_of_a_session_is_found_among_others(cookies, found):
    assert session_cookie(request(*cookies)) == found


@pytest.mark.parametrize("cookie", ["a=b", "a b", "", f"{COOKIE}=", f"{COOKIE}=a b"])
def test_the_other_cookies_of_a_request_cost_nothing(cookie):
    one, many = request(cookie), request(*[cookie] * 1000)
    assert calls_of(lambda: session_cookie(many)) <= calls_of(lambda: session_cookie(one))
