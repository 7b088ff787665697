import aiohttp
import pytest
from yarl import URL

from bridge.sandbox.sandbox import Sandbox


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.seconds = 1_700_000_000.0

    def __call__(self):
        return self.seconds

    def move(self, seconds):
        self.seconds += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def sandbox(clock):
    async with Sandbox(now=clock) as sandbox:
        yield sandbox


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


class TestNodClient:
    """TestNod's calls as its reference writes them, with the answer as (status, body)."""

    __test__ = False

    def __init__(self, http, sandbox):
        self._http = http
        self._sandbox = sandbox

    async def post(self, path, data=None, *, token=None, **kwargs):
        headers = {"Project-Token": self._sandbox.project_token if token is None else token}
        url = f"{self._sandbox.testnod_url}/integrations/test_runs/{path}"
        async with self._http.post(url, data=data, headers=headers, **kwargs) as answer:
            return answer.status, await answer.json()

    async def register(self, build_id="b1", **kwargs):
        return await self.post("upload", {"test_run[metadata][build_id]": build_id}, **kwargs)

    async def finalize(self, build_id="b1", **kwargs):
        return await self.post("finalize", {"build_id": build_id}, **kwargs)

    async def upload_failed(self, registration, message="s3 PUT returned 502"):
        return await self.post(
            "upload_failed",
            {
                "test_run_id": registration["test_run_id"],
                "upload_id": registration["upload_id"],
                "failure_message": message,
            },
        )

    async def put(self, registration, body=b"<testsuite/>"):
        async with self._http.put(URL(registration["presigned_url"], encoded=True), data=body) as answer:
            return answer.status


@pytest.fixture
def testnod(http, sandbox):
    return TestNodClient(http, sandbox)
