"""Whose address counts where a proxy stands in front: over real sockets, before the real gateway."""

import aiohttp
import pytest_asyncio

from tests.fake_clock import START, FakeClock
from tests.integration.server.running import running
from tests.integration.server.upload_server import FORM, GOOD, form

JOB = "a1" * 16
TARGET = f"/v1/report/junit/report/upload?job_id={JOB}&build_no=1"
CALLERS = """\
[callers]
auth = ["token", "aksk"]
[[callers.tokens]]
name = "ci"
token = "canary-token"
[[callers.keys]]
name = "sdk"
access_key = "AKSHOP"
secret_key = "sk-canary"
[[routes]]
name = "shop"
project_token = "t-123456"
"""
BAD_SIGNATURE = f"SDK-HMAC-SHA256 Access=AKSHOP, SignedHeaders=x-sdk-date, Signature={'0' * 64}"
DATE = "20231114T221320Z"
HERE, THERE = "198.51.100.1", "198.51.100.2"


@pytest_asyncio.fixture
async def gateway(tmp_path):
    async with running(tmp_path, CALLERS, server='trusted_proxies = ["127.0.0.1"]', clock=FakeClock(START)) as gateway:
        yield gateway


async def post(gateway, address, headers, body=b""):
    headers = FORM | headers | {"X-Forwarded-For": f"203.0.113.9, {address}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(gateway.server_url + TARGET, headers=headers, data=body) as got,
    ):
        return got.status, await got.json()


async def test_a_large_upload_through_a_trusted_proxy_is_kept_with_its_clients_address(gateway):
    body = form(
        ("report.xml", GOOD), ("large.xml", GOOD.replace(b"<failure/>", b"<failure>" + b"x" * 300_000 + b"</failure>"))
    )

    status, answer = await post(gateway, HERE, {"X-Auth-Token": "canary-token"}, body)

    assert (status, answer["status"]) == (200, "success")
    assert await gateway.database.read(_addresses) == {HERE}


async def test_a_key_is_locked_for_the_address_behind_the_proxy_and_for_no_other(gateway):
    wrong = {"Authorization": BAD_SIGNATURE, "X-Sdk-Date": DATE}
    for _ in range(7):
        _, here = await post(gateway, HERE, wrong)
    _, there = await post(gateway, THERE, wrong)

    assert "AK access failed to reach the limit" in here["error_msg"]
    assert "verify aksk signature fail" in there["error_msg"]


def _addresses(connection):
    return set(connection.exec_driver_sql("SELECT address FROM reports").scalars())
