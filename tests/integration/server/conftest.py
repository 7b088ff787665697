"""A ledger in SQLite, a server with nothing but the upload handler, and a client that uploads."""

import io

import aiohttp
import pytest
from aiohttp import web

from bridge.server.auth.authenticator import Authenticator
from bridge.server.http.requests import UPLOAD_PATH, handle_expect
from bridge.server.http.responses import handle_errors
from bridge.server.upload.file_store import Quarantine, UploadLimits
from bridge.server.upload.handler import UploadHandler
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.disk import DiskSpool
from tests.support.upload_server import (
    CALLERS,
    FORM,
    JOB,
    KEEP_US,
    MAX_FILES,
    MAX_REPORT,
    MAX_REQUEST,
    ROUTES,
    UploadServer,
)


@pytest.fixture
async def database(sqlite, clock):
    """An empty ledger, open for one test; which backend it has makes no difference to handlers."""
    async with sqlite.fresh(clock) as database:
        yield database


@pytest.fixture
async def checker():
    async with ValidationPool(workers=1) as running:
        yield running


@pytest.fixture
async def server(tmp_path, checker, aiohttp_server):
    server = UploadServer(tmp_path)
    handler = UploadHandler(
        routes=ROUTES,
        limits=UploadLimits(max_report_size=MAX_REPORT, max_request_size=MAX_REQUEST, max_files=MAX_FILES),
        authenticator=Authenticator(CALLERS, now=lambda: 0),
        spool=DiskSpool(tmp_path),
        pool=checker,
        quarantine=Quarantine(keep_us=KEEP_US, reserve_space=server.keep),
        accept=server.accept,
        admit=server.admit,
        reserve_space=server.take,
        metrics=server,
        memory=server.memory,
    )

    async def upload(request: web.Request) -> web.Response:
        try:
            return await handler.upload(request)
        finally:
            server.closed.put_nowait(None)

    app = web.Application(middlewares=[handle_errors])
    app.router.add_post(UPLOAD_PATH, upload, expect_handler=handle_expect)
    server.listener = await aiohttp_server(app, auto_decompress=False)
    return server


@pytest.fixture
async def send(server):
    async with aiohttp.ClientSession() as session:

        async def post(body=None, *, headers=None, token="any", **query):
            parameters = {"job_id": JOB, "build_no": "7", "node_id": "n1"} | query
            data = io.BytesIO(body) if isinstance(body, bytes) else body
            url = server.listener.make_url(UPLOAD_PATH).with_query(parameters)
            async with session.post(
                url, data=data, headers=FORM | {"X-Auth-Token": token} | (headers or {})
            ) as response:
                assert len(response.headers["X-Request-Id"]) == 32
                return response.status, await response.json(), response.headers

        yield post
