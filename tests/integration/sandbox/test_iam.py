import aiohttp
import pytest

from bridge.sandbox.sandbox import DEFAULT_USER
from bridge.sandbox.state import LOGIN_LOCK_US

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
DAY = 24 * 60 * 60


@pytest.fixture
async def iam(http, sandbox):
    return IamClient(http, sandbox)


class IamClient:
    """IAM's calls as its reference writes them."""

    def __init__(self, http, sandbox):
        self._http = http
        self._sandbox = sandbox

    async def log_in(self, user=DEFAULT_USER, project="cn-north-4"):
        name, password, domain = user
        identity = {
            "methods": ["password"],
            "password": {"user": {"name": name, "password": password, "domain": {"name": domain}}},
        }
        scope = {"scope": {"project": {"name": project}}} if project else {}
        body = {"auth": {"identity": identity, **scope}}
        async with self._http.post(f"{self._sandbox.iam_url}/v3/auth/tokens?nocatalog=true", json=body) as answer:
            return answer.status, answer.headers.get("X-Subject-Token"), await answer.json()

    async def validate(self, requester, subject):
        headers = {"X-Auth-Token": requester, "X-Subject-Token": subject}
        async with self._http.get(f"{self._sandbox.iam_url}/v3/auth/tokens", headers=headers) as answer:
            return answer.status, await answer.json()

    async def build_info(self, token):
        url = f"{self._sandbox.codearts_url}/v1/job/{JOB}/1/build-info"
        async with self._http.get(url, headers={"X-Auth-Token": token} if token else {}) as answer:
            return answer.status, (await answer.json()).get("error_code")


@pytest.fixture
async def http():
    # Tokens come in a header line longer than aiohttp takes by itself.
    async with aiohttp.ClientSession(max_field_size=128 * 1024) as session:
        yield session


async def test_a_password_gives_a_long_token_for_a_day(iam, clock):
    status, token, body = await iam.log_in()
    assert status == 201
    assert len(token) > 10_000
    assert body["token"]["project"]["name"] == "cn-north-4"
    assert body["token"]["expires_at"].endswith("Z")
    assert (await iam.validate(token, token))[0] == 200
    clock.move(DAY)
    assert (await iam.validate(token, token))[0] == 401


@pytest.mark.parametrize("user", [("sandbox", "wrong", "sandbox"), ("nobody", "x", "sandbox"), ("sandbox", "x", "y")])
async def test_wrong_logins_are_rejected_alike(iam, user):
    status, token, body = await iam.log_in(user)
    assert (status, token) == (401, None)
    assert body["error"]["message"] == "The username or password is wrong."


async def test_five_wrong_passwords_lock_the_user_for_a_quarter_of_an_hour(iam, clock):
    for _ in range(5):
        await iam.log_in(("sandbox", "wrong", "sandbox"))
    assert (await iam.log_in())[0] == 401
    clock.move(LOGIN_LOCK_US / 1_000_000)
    assert (await iam.log_in())[0] == 201


async def test_a_body_that_is_no_login_is_a_bad_request(http, sandbox):
    async with http.post(f"{sandbox.iam_url}/v3/auth/tokens", data=b"[") as answer:
        assert answer.status == 400


async def test_tokens_of_others_are_shown_to_security_administrators_only(iam, sandbox):
    sandbox.state.accounts.add_user("admin", "pw", "sandbox", security_admin=True)
    _, token, _ = await iam.log_in()
    _, admin, _ = await iam.log_in(("admin", "pw", "sandbox"))
    assert (await iam.validate(admin, token))[0] == 200
    assert (await iam.validate(token, admin))[0] == 403
    assert (await iam.validate(token, "unknown"))[0] == 404
    assert (await iam.validate("unknown", token))[0] == 401


async def test_codearts_takes_tokens_of_projects_and_says_what_is_wrong_with_others(iam, http, sandbox):
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    _, token, _ = await iam.log_in()
    _, of_an_account, _ = await iam.log_in(project=None)
    assert await iam.build_info(token) == (200, None)
    for wrong in ("", "unknown", of_an_account):
        assert await iam.build_info(wrong) == (401, "APIGW.0301")
    async with http.post(f"{sandbox.control_url}/tokens/end") as answer:
        assert (await answer.json())["ended"] == 2
    assert await iam.build_info(token) == (401, "APIGW.0307")


async def test_another_password_ends_the_tokens_of_the_old_one(iam, http, sandbox):
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    _, token, _ = await iam.log_in()
    changed = {"name": "sandbox", "password": "new", "domain": "sandbox"}
    async with http.post(f"{sandbox.control_url}/users", json=changed) as answer:
        assert answer.status == 201
    assert (await iam.build_info(token))[0] == 401
    assert (await iam.log_in(("sandbox", "new", "sandbox")))[0] == 201


async def test_a_project_is_found_by_its_name(http, sandbox):
    async with http.get(f"{sandbox.iam_url}/v3/projects?name=cn-north-4") as answer:
        (project,) = (await answer.json())["projects"]
    assert project["name"] == "cn-north-4"
    assert len(project["id"]) == 32
