import pytest

from bridge.domain.callers import OPEN_CALLER, AuthScheme, Caller
from bridge.domain.routing import Route
from bridge.errors import BadParameter, Forbidden
from bridge.server.proxy.authorization import AuthorizationMode, ProxyPolicy, authorization_mode, is_login
from bridge.server.proxy.request_target import parse_target
from bridge.settings.model import ProxySettings

OWN, OTHER, NOBODYS = "a" * 32, "b" * 32, "c" * 32
ROUTES = (Route(name="shop", job_id=("a*",)), Route(name="other", job_id=("b*",)))
DEFAULT = ProxyPolicy(paths=ProxySettings().paths, methods=ProxySettings().methods, max_upload_bytes=1)
ALL = ProxyPolicy(paths=("*",), methods=("GET", "HEAD", "POST"), max_upload_bytes=1)


def caller(scheme, *, scopes=("proxy",), routes=("shop",)):
    token = "iam-token" if scheme is AuthScheme.IAM else None
    return Caller(scheme=scheme, name="ci", routes=routes, scopes=frozenset(scopes), iam_token=token)


TOKEN, KEY, IAM = caller(AuthScheme.TOKEN), caller(AuthScheme.AKSK), caller(AuthScheme.IAM)
UPLOADER = caller(AuthScheme.TOKEN, scopes=("upload", "status"))
ANY_ROUTE = caller(AuthScheme.AKSK, routes=None)


def mode(who, method, raw, policy=DEFAULT, **options):
    return authorization_mode(who, method, parse_target(raw), policy=policy, routes=ROUTES, **options)


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
        ("GET", f"/v1/report/junit/coverage/list?job_id={OWN}&build_no=1"),
        ("GET", f"/v1/report/junit/coverage/download?job_id={OWN}&build_no=1&root_id=r"),
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


COVERAGE = "/v1/report/junit/coverage/upload?job_id={}&build_no=1&node_id=n"
BOTH = ("upload", "proxy")


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (UPLOADER, AuthorizationMode.BRIDGE),
        (caller(AuthScheme.AKSK, scopes=("upload",)), AuthorizationMode.BRIDGE),
        (caller(AuthScheme.TOKEN, scopes=BOTH), AuthorizationMode.BRIDGE),
        (caller(AuthScheme.IAM, scopes=("upload",)), AuthorizationMode.CALLER_TOKEN),
    ],
)
def test_who_may_upload_reports_may_upload_coverage_of_own_jobs(who, expected):
    assert mode(who, "POST", COVERAGE.format(OWN)) is expected
    assert mode(who, "POST", COVERAGE.format(OWN).replace("upload?", "upload/?")) is expected
    with pytest.raises(Forbidden, match="belongs to no route of the caller"):
        mode(who, "POST", COVERAGE.format(NOBODYS))


def test_a_job_of_another_route_is_not_among_them_in_either_case_of_letters():
    for job_id in (OTHER, OTHER.upper()):
        with pytest.raises(Forbidden, match="belongs to no route of the caller"):
            mode(UPLOADER, "POST", COVERAGE.format(job_id))
    assert mode(UPLOADER, "POST", COVERAGE.format(OWN.upper())) is AuthorizationMode.BRIDGE


def test_iam_users_with_all_scopes_upload_coverage_as_they_call_everything_else():
    everything = caller(AuthScheme.IAM, scopes=("upload", "status", "proxy"))
    assert mode(everything, "POST", COVERAGE.format(OTHER)) is AuthorizationMode.CALLER_TOKEN


def test_an_open_bridge_lends_its_credentials_to_no_caller():
    for job_id in (OWN, NOBODYS):
        assert mode(OPEN_CALLER, "POST", COVERAGE.format(job_id)) is AuthorizationMode.UNCHANGED


@pytest.mark.parametrize("name", ["jobId", "JOB_ID", "job_id[]", "job.id", "+job_id", "job_id%00", "record_id"])
def test_a_coverage_upload_names_no_second_job(name):
    with pytest.raises(BadParameter, match="Send job_id, build_no and node_id"):
        mode(UPLOADER, "POST", f"{COVERAGE.format(OWN)}&{name}={OTHER}")


def test_coverage_needs_the_scope_upload_or_a_path_of_the_proxy():
    with pytest.raises(Forbidden, match='lacks the scope "upload"'):
        mode(caller(AuthScheme.TOKEN, scopes=("status",)), "POST", COVERAGE.format(OWN))
    with pytest.raises(Forbidden, match=r"proxy\.paths"):
        mode(TOKEN, "POST", COVERAGE.format(OWN))
    assert mode(TOKEN, "POST", COVERAGE.format(OWN), ALL) is AuthorizationMode.BRIDGE


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_the_upload_itself_is_lent(method):
    with pytest.raises(Forbidden):
        mode(UPLOADER, method, COVERAGE.format(OWN))
    with pytest.raises(Forbidden):
        mode(UPLOADER, "POST", COVERAGE.format(OWN).replace("upload", "delete"))


@pytest.mark.parametrize(
    "query",
    [
        "build_no=1",
        "job_id=&build_no=1",
        "job_id=$" + "{JOB}&build_no=1",
        f"job_id={OWN}",
        f"job_id={OWN}&build_no=20240626.1",
        f"job_id={OWN}&job_id={OTHER}&build_no=1",
        f"job_id={OWN}&build_no=1&job%5Fid={OTHER}",
        f"job_id={OWN}&build_no=1;job_id={OTHER}",
    ],
)
def test_a_query_that_names_no_build_or_several_is_rejected(query):
    with pytest.raises(BadParameter):
        mode(UPLOADER, "POST", f"/v1/report/junit/coverage/upload?{query}")
