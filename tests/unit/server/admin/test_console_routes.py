"""The console's pages are made with their first request, in a thread, and once."""

import asyncio
import threading
from typing import ClassVar

import pytest
from aiohttp import web

from bridge.server.admin.console.routes import Console


class Pages:
    """Pages that answer with a text; `made` are the threads in which they were made."""

    made: ClassVar[list[threading.Thread]] = []
    closed = 0

    def __init__(self):
        self.made.append(threading.current_thread())

    async def builds(self, _request):
        return web.Response(text="builds")

    async def overview(self, _request):
        return web.Response(text="overview")

    def close(self):
        type(self).closed += 1


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(Pages, "made", [])
    monkeypatch.setattr(Pages, "closed", 0)
    return Pages


@pytest.fixture
async def client(pages, aiohttp_client):
    app = web.Application()
    Console(pages).add_routes(app)
    return await aiohttp_client(app)


async def test_pages_are_made_once_in_a_thread_with_the_first_requests(client, pages):
    assert pages.made == []
    answers = await asyncio.gather(client.get("/builds"), client.get("/"))
    assert [await answer.text() for answer in answers] == ["builds", "overview"]
    (thread,) = pages.made
    assert thread is not threading.current_thread()
    await client.close()
    assert pages.closed == 1


async def test_without_a_request_no_page_is_made(client, pages):
    await client.close()
    assert (pages.made, pages.closed) == ([], 0)
