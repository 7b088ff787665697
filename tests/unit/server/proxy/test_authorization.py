import pytest

from bridge.domain.callers import OPEN_CALLER, AuthScheme, Caller
from bridge.domain.routing import Route
from bridge.errors import Forbidden
from bridge.server.proxy.authorization import AuthorizationMode, ProxyPolicy, authorization_mode, is_login
from bridge.server.proxy.request_target import parse_target
from bridge.settings.model import ProxySettings

OWN, OTHER, NOBODYS = "a" * 32, "b" * 32, "c" * 32
ROUTES = (Route(name="shop", job_id=("a*",)), Route(name="other", job_id=("b*",)))
DEFAULT = ProxyPolicy(paths=ProxySettings().paths, methods=ProxySettings().methods)
ALL = ProxyPolicy(paths=("*",), methods=("GET", "HEAD", "POST"))


def caller(scheme, *, scopes=("proxy",), routes=("shop",)):
    token = "iam-token" if scheme is AuthScheme.IAM else None
    return Caller(scheme=scheme, name="ci", routes=routes, scopes=frozenset(scopes), iam_token=token)


TOKEN, KEY, IAM = caller(AuthScheme.TOKEN), caller(AuthScheme.AKSK), caller(AuthScheme.IAM)
UPLOADER = caller(AuthScheme.TOKEN, scopes=("upload", "status"))
ANY_ROUTE = caller(AuthScheme.AKSK, routes=None)


def mode(who, method, raw, policy=DEFAULT):
    return authorization_mode(who, method, parse_target(raw), policy=policy, routes=ROUTES)


@pytest.mark.parametrize("who", [TOKEN, KEY])
@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("GET", f"/v1/job/{OWN}/1/build-info"),
        ("HEAD", f"/v1/job/{OWN}/1/build-info"),
        ("GET", f"/v1/record/{OWN}/1/record-info"),
        ("GET", f"/v4/jobs/{OWN}/1/record-info"),
        ("GET", "/v1/record/3b2f/full-stages"),
        ("GET", f"/v1/report/{OWN}/summary?build_no=1"),
        ("PUT", "/v1/jobs/d2a1/result/refresh?task_id=&async=false"),
    ],
)
def test_by_default_the_bridge_lends_its_rights_to_what_is_read_of_builds(who, method, raw):
    assert mode(who, method, raw) is AuthorizationMode.BRIDGE


@pytest.mark.parametrize("who", [TOKEN, KEY])
@pytest.mark.parametrize(
    ("method", "raw", "why"),
    [
        ("POST", f"/v1/job/{OWN}/1/build-info", "proxy.paths"),
        ("PUT", f"/v1/job/{OWN}/1/build-info", "proxy.paths"),
        ("GET", "/v1/jobs/d2a1/result/refresh", "proxy.paths"),
        ("DELETE", f"/v1/job/{OWN}", "proxy.paths"),
        ("GET", f"/v1/job/{OWN}/1/build-info/more", "proxy.paths"),
        ("GET", f"/v1/job/{OWN}/1/build-info/", "proxy.paths"),
        ("GET", f"/v1/job/{OWN}/1/2/build-info", "proxy.paths"),
        ("GET", "/v2/tasks/d2a1/progress", "proxy.paths"),
        ("GET", f"/v1/job/{OTHER}/1/build-info", "no route of the caller"),
        ("GET", f"/v1/report/{OWN}/summary?job_id={OTHER}", "no route of the caller"),
        ("GET", f"/v1/job/{NOBODYS}/1/build-info", "no route of the caller"),
        ("GET", "/v3/auth/tokens", "call IAM"),
        ("GET", "/v3/projects", "call IAM"),
    ],
)
def test_everything_else_is_rejected_with_the_reason(who, method, raw, why):
    with pytest.raises(Forbidden, match=why):
        mode(who, method, raw)


@pytest.mark.parametrize("raw", ["/v1/job/list", "/v1/job/create", f"/v1/log/{OWN}/1/x", "/v2/tasks/d2a1", "/"])
def test_a_star_opens_everything(raw):
    assert mode(TOKEN, "POST", raw, ALL) is AuthorizationMode.BRIDGE


@pytest.mark.parametrize(
    ("method", "raw"),
    [("GET", "/v3/auth/tokens"), ("GET", "/v5/x"), ("POST", f"/v1/job/{OTHER}/stop"), ("DELETE", "/v1/job/x")],
)
def test_but_iam_other_methods_and_other_peoples_jobs(method, raw):
    with pytest.raises(Forbidden):
        mode(TOKEN, method, raw, ALL)


def test_a_caller_of_any_route_may_ask_for_the_jobs_of_all_routes_and_no_others():
    assert mode(ANY_ROUTE, "GET", f"/v1/job/{OTHER}/1/build-info") is AuthorizationMode.BRIDGE
    with pytest.raises(Forbidden):
        mode(ANY_ROUTE, "GET", f"/v1/job/{NOBODYS}/1/build-info")


@pytest.mark.parametrize(
    ("method", "raw"), [("GET", f"/v1/job/{OTHER}/1/build-info"), ("DELETE", "/v1/job/x"), ("GET", "/v3/auth/tokens")]
)
def test_who_has_rights_of_its_own_goes_on_with_them_anywhere(method, raw):
    assert mode(IAM, method, raw) is AuthorizationMode.CALLER_TOKEN
    assert mode(OPEN_CALLER, method, raw) is AuthorizationMode.UNCHANGED


@pytest.mark.parametrize(
    "who", [UPLOADER, caller(AuthScheme.IAM, scopes=("upload",)), caller(AuthScheme.AKSK, scopes=())]
)
def test_without_the_scope_a_known_caller_is_rejected(who):
    with pytest.raises(Forbidden, match='scope "proxy"'):
        mode(who, "GET", f"/v1/job/{OWN}/1/build-info")


@pytest.mark.parametrize(
    ("method", "raw", "login"),
    [
        ("POST", "/v3/auth/tokens", True),
        ("POST", "/v3/auth/tokens?nocatalog=true", True),
        ("GET", "/v3/auth/tokens", False),
        ("POST", "/v3/auth/tokens/", False),
        ("POST", "/v3/auth/projects", False),
    ],
)
def test_only_asking_for_a_token_needs_none(method, raw, login):
    assert is_login(method, parse_target(raw)) is login
