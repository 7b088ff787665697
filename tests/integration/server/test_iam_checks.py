"""Checks of callers' tokens at an IAM that does not answer, from several addresses."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.server.auth.fair_queue import MAX_CHECKS, MAX_OF_ORIGIN
from tests.support.listener import PATIENCE_SECONDS, running

SETTINGS = """\
[codearts]
iam_endpoint = "{iam}"
domain = "firm"
[callers]
auth = "iam"
[[routes]]
name = "shop"
project_token = "t-123456"
"""
STATUS = f"/bridge/v1/builds/{'a1' * 16}/1"


class HungIam:
    """Takes requests and answers none until it is closed."""

    def __init__(self):
        self.checks = asyncio.Semaphore(0)  # released by each that came
        self._closing = asyncio.Event()

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._hang)
        self._server = TestServer(app)
        await self._server.start_server()
        return self

    async def __aexit__(self, *_):
        self._closing.set()
        await self._server.close()

    @property
    def url(self):
        return str(self._server.make_url(""))

    async def _hang(self, _request):
        self.checks.release()
        await self._closing.wait()
        return web.Response(status=503)


@pytest.mark.parametrize(("addresses", "checks"), [(1, MAX_OF_ORIGIN), (2, MAX_CHECKS)])
async def test_every_check_that_has_its_turn_is_sent_to_iam_at_once(tmp_path, addresses, checks):
    async with (
        HungIam() as iam,
        running(tmp_path, SETTINGS.format(iam=iam.url), server='trusted_proxies = ["127.0.0.1"]') as gateway,
        aiohttp.ClientSession(gateway.server_url, connector=aiohttp.TCPConnector(limit=0)) as http,
        asyncio.timeout(PATIENCE_SECONDS),
        asyncio.TaskGroup() as group,
    ):

        async def ask(number: int) -> None:
            address = f"192.0.2.{1 + number // MAX_OF_ORIGIN}"
            async with http.get(STATUS, headers={"X-Auth-Token": f"token-{number}", "X-Forwarded-For": address}):
                pass

        asking = [group.create_task(ask(number)) for number in range(addresses * MAX_OF_ORIGIN)]
        for _ in range(checks):
            await iam.checks.acquire()
        assert iam.checks.locked()  # and no other is sent
        for each in asking:
            each.cancel()
