"""Who may do what at the real gateway: every scheme and scope against uploads, status, and another route's job."""

import aiohttp
import pytest
import pytest_asyncio
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from bridge.protocols.iam import Login, token_request
from bridge.sandbox.sandbox import Sandbox
from tests.support.listener import running
from tests.support.upload_server import FORM, GOOD, form

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB, OTHER_JOB = "a1" * 16, "b2" * 16
UPLOAD_PATH = "/v1/report/junit/report/upload"
SCOPED = {"uploader": ["upload"], "reader": ["status"], "both": ["upload", "status"], "proxied": ["proxy"]}
FIRM = "firm"


def caller_tables() -> str:
    """Return a token, a key and an IAM user for each set of scopes, all bound to the route shop."""
    tables = ""
    for name, scopes in SCOPED.items():
        rights = f'routes = ["shop"]\nscopes = {scopes}\n'
        tables += f'[[callers.tokens]]\nname = "{name}"\ntoken = "token-{name}"\n{rights}'
        tables += f'[[callers.keys]]\nname = "key-{name}"\naccess_key = "AK{name}"\nsecret_key = "sk-{name}"\n{rights}'
        tables += f'[[callers.users]]\nname = "{name}"\n{rights}'
    return tables


def settings(sandbox: Sandbox) -> str:
    return f"""\
[codearts]
endpoint = "{sandbox.codearts_url}"
check_endpoint = "{sandbox.check_url}"
iam_endpoint = "{sandbox.iam_url}"
domain = "{FIRM}"
project = "cn-north-4"
[callers]
auth = ["token", "iam", "aksk"]
{caller_tables()}
[[callers.tokens]]
name = "ended"
token = "token-ended"
routes = ["shop"]
expires_at = 2020-01-01T00:00:00Z
[[callers.tokens]]
name = "unseen"
token = "token-unseen"
routes = ["shop"]
expires_at = 2020-01-01T00:00:00Z
[[routes]]
name = "shop"
project_token = "t-123456"
job_id = "{JOB}"
[[routes]]
name = "other"
project_token = "t-654321"
"""


class Stage:
    """A gateway before a sandbox's IAM, and callers of every kind."""

    def __init__(self, sandbox: Sandbox, url: str, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.sandbox = sandbox
        self.url = url
        self._tokens: dict[tuple[str, str], str] = {}

    async def iam_token(self, user: str, *, domain: str = FIRM, project: str = "cn-north-4") -> str:
        """Return one token for each user, from IAM as anybody gets it."""
        if (user, domain) not in self._tokens:
            self.sandbox.state.accounts.add_user(user, "pw-canary", domain)
            login = token_request(Login(user=user, password="pw-canary", domain=domain, project=project))
            async with (
                aiohttp.ClientSession(max_field_size=1 << 17) as http,
                http.post(f"{self.sandbox.iam_url}/v3/auth/tokens", data=login) as answer,
            ):
                self._tokens[user, domain] = answer.headers["X-Subject-Token"]
        return self._tokens[user, domain]

    async def ask(self, scheme, name, method, path, query=(), *, headers=(), body=b""):
        """Make a request as this caller; return status, code and answer."""
        if scheme == "aksk":
            made = SdkRequest(
                method=method,
                schema="http",
                host=self.url.removeprefix("http://"),
                resource_path=path,
                query_params=list(query),
                header_params=dict(headers),
                body=body,
            )
            signed = Signer(BasicCredentials(f"AK{name}", f"sk-{name}")).sign(made)
            target, sent = signed.uri, signed.header_params
        else:
            target = path + "".join(f"{sign}{key}={value}" for sign, (key, value) in zip("?&", query, strict=False))
            token = f"token-{name}" if scheme == "token" else await self.iam_token(name)
            sent = dict(headers) | {"X-Auth-Token": token}
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.url + target, headers=sent, data=body) as answer,
        ):
            told = await answer.json() if answer.content_type == "application/json" else {}
            return answer.status, told.get("error_code"), told

    async def upload(self, scheme, name, job_id=JOB, build_no="1"):
        query = [("job_id", job_id), ("build_no", build_no)]
        return await self.ask(
            scheme, name, "POST", UPLOAD_PATH, query, headers=FORM.items(), body=form((f"{scheme}-{name}.xml", GOOD))
        )

    async def status(self, scheme, name, job_id=JOB, build_no=1):
        return await self.ask(scheme, name, "GET", f"/bridge/v1/builds/{job_id}/{build_no}")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    async with (
        Sandbox() as sandbox,
        running(folder, settings(sandbox)) as gateway,
        aiohttp.ClientSession(max_field_size=1 << 17) as http,
    ):
        for job_id in (JOB, OTHER_JOB):
            sandbox.state.builds.start(job_id, 5, at=sandbox.state.micros())
        yield Stage(sandbox, gateway.server_url, http)


SCHEMES = pytest.mark.parametrize("scheme", ["token", "iam", "aksk"])
NAMES = {"token": "{}", "aksk": "key-{}", "iam": "iam:{}"}


@SCHEMES
@pytest.mark.parametrize("name", SCOPED)
async def test_a_scope_allows_what_it_says_and_no_more(stage, scheme, name):
    uploaded, _, _ = await stage.upload(scheme, name)
    asked, code, _ = await stage.status(scheme, name, build_no=77)

    assert uploaded == (200 if "upload" in SCOPED[name] else 403)
    # Nothing was uploaded for build 77: a caller with the scope gets 404.
    assert (asked, code) == ((404, "BRIDGE.NOT_FOUND") if "status" in SCOPED[name] else (403, "APIGW.0302"))


@SCHEMES
async def test_a_report_stands_under_its_callers_name_and_is_seen_by_its_own(stage, scheme):
    number = {"token": 11, "iam": 12, "aksk": 13}[scheme]
    assert (await stage.upload(scheme, "both", build_no=str(number)))[0] == 200

    status, _, build = await stage.status(scheme, "both", build_no=number)

    assert status == 200
    assert [report["caller"] for report in build["reports"]] == [NAMES[scheme].format("both")]


@SCHEMES
async def test_no_caller_uploads_for_the_job_of_another_route_or_sees_its_builds(stage, scheme):
    status, code, told = await stage.upload(scheme, "both", OTHER_JOB)
    assert (status, code) == (403, "APIGW.0302")
    assert "may not upload for the job" in told["error_msg"]

    status, code, told = await stage.status(scheme, "reader", OTHER_JOB)
    assert (status, code) == (404, "BRIDGE.NOT_FOUND")


LENT = {"token", "aksk"}  # they go on in the bridge's name, within proxy.paths and to their own jobs


@SCHEMES
@pytest.mark.parametrize("name", SCOPED)
@pytest.mark.parametrize(
    ("method", "path", "lent", "own"),
    [
        ("GET", f"/v1/job/{JOB}/5/build-info", 200, 200),
        ("GET", f"/v1/record/{JOB}/5/record-info", 200, 200),
        ("GET", f"/v1/job/{OTHER_JOB}/5/build-info", 403, 200),
        ("GET", f"/v1/record/{OTHER_JOB}/5/record-info", 403, 200),
        ("POST", f"/v1/job/{JOB}/5/build-info", 403, 404),
        ("DELETE", f"/v1/record/{JOB}/5/record-info", 403, 404),
        ("GET", f"/v1/job/{JOB}/5/of-no-list", 403, 404),
        ("GET", "/v2/tasks/1/progress", 403, 400),
        ("GET", "/v3/projects", 403, 200),
        ("PUT", "/v3/auth/tokens", 403, 404),
    ],
)
async def test_who_may_ask_codearts_through_the_bridge(stage, scheme, name, method, path, lent, own):
    status, code, _ = await stage.ask(scheme, name, method, path)

    if "proxy" not in SCOPED[name]:
        assert (status, code) == (403, "APIGW.0302")
    elif scheme in LENT:
        assert (status, code) == (lent, None if lent == 200 else "APIGW.0302")
    else:  # CodeArts itself says what an IAM user may
        assert status == own
        assert code != "APIGW.0302"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "x-auth-token not found"),
        ({"X-Auth-Token": "token-nobody"}, "decrypt token fail"),
        ({"X-Auth-Token": "token-ended"}, 'The token of the caller "ended" expired on '),
        ({"Authorization": "Bearer token-nobody"}, "decrypt token fail"),
        ({"Authorization": "Basic dG9rZW4="}, "x-auth-token not found"),
        ({"Authorization": "SDK-HMAC-SHA256 nonsense"}, "verify aksk signature fail"),
        ({"Authorization": "SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature=" + "0" * 64}, "verify aksk"),
    ],
    ids=["none", "unknown", "ended", "unknown bearer", "another scheme", "no signature", "a signature without a date"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_strangers_are_refused_everywhere_and_told_nothing_but_the_reason(stage, method, headers, reason):
    path = UPLOAD_PATH if method == "POST" else f"/bridge/v1/builds/{JOB}/1"
    async with stage.http.request(method, stage.url + path, headers=headers) as answer:
        told = await answer.json()
    assert (answer.status, told["error_code"]) == (401, "APIGW.0301")
    assert reason in told["error_msg"]
    assert "token-" not in str(told)
    assert len(answer.headers["X-Request-Id"]) == 32


async def test_one_of_ours_that_ended_is_never_shown_to_iam(stage):
    before = len(stage.sandbox.state.calls.at("iam.*"))
    assert (await stage.upload("token", "unseen"))[0] == 401
    assert len(stage.sandbox.state.calls.at("iam.*")) == before


@pytest.mark.parametrize(
    ("user", "domain", "project"),
    [("both", "strangers", "cn-north-4"), ("unnamed", FIRM, "cn-north-4"), ("elsewhere", FIRM, "cn-south-1")],
    ids=["another account", "a user that no table names", "another project"],
)
async def test_a_good_token_of_another_account_is_rejected(stage, user, domain, project):
    token = await stage.iam_token(user, domain=domain, project=project)
    async with (
        aiohttp.ClientSession() as http,
        http.post(stage.url + UPLOAD_PATH, headers={"X-Auth-Token": token}) as answer,
    ):
        assert (answer.status, (await answer.json())["error_code"]) == (401, "APIGW.0301")


async def test_while_iam_is_away_those_it_has_vouched_for_serve_on_and_others_are_told_to_come_again(stage):
    assert (await stage.upload("iam", "both"))[0] == 200
    stage.sandbox.state.faults.script("iam.validate", {"status": 503}, {"cut": True})

    for user in ("late", "later"):
        headers = {"X-Auth-Token": await stage.iam_token(user)}
        async with stage.http.post(stage.url + UPLOAD_PATH, headers=headers) as answer:
            assert (answer.status, (await answer.json())["error_code"]) == (503, "BRIDGE.UNAVAILABLE")
            assert int(answer.headers["Retry-After"]) > 0
    assert (await stage.upload("iam", "both"))[0] == 200
    assert (await stage.upload("token", "both"))[0] == 200


async def test_an_iam_token_is_not_taken_as_a_bearer_token(stage):
    token = await stage.iam_token("both")
    async with (
        aiohttp.ClientSession() as http,
        http.post(stage.url + UPLOAD_PATH, headers={"Authorization": f"Bearer {token}"}) as answer,
    ):
        assert answer.status == 401
