"""The client of the admin API, beside servers that are no gateway."""

import pytest
from aiohttp import web

from bridge.commands import admin_client
from bridge.commands.admin_client import AdminAddress, request_admin_api
from bridge.errors import BridgeError


@pytest.fixture
def serving(aiohttp_server):
    """Serve /api/v1/builds by a handler; return the address of the admin API there."""

    async def start(handler):
        app = web.Application()
        app.router.add_get("/api/v1/builds", handler)
        return AdminAddress(url=str((await aiohttp_server(app)).make_url("")).rstrip("/"), token="canary-token")

    return start


async def test_a_redirect_is_not_followed(serving):
    followed = []

    async def elsewhere(request):
        followed.append(request.path)
        return web.json_response({"builds": []})

    other = await serving(elsewhere)

    async def redirect(_request):
        raise web.HTTPFound(f"{other.url}/api/v1/builds")

    with pytest.raises(BridgeError, match=r"is not a gateway \(status 302\)"):
        await request_admin_api(await serving(redirect), "/api/v1/builds")
    assert followed == []


async def test_an_answer_without_end_is_not_waited_for(serving, monkeypatch):
    monkeypatch.setattr(admin_client, "MAX_RESPONSE_BYTES", 100_000)

    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 100_000)

    with pytest.raises(BridgeError, match=r"is not a gateway \(status 200\)"):
        await request_admin_api(await serving(endless), "/api/v1/builds")
