"""The sandbox: six listeners with a common state while its context is entered, and instructions for using it."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from aiohttp import web

from bridge.sandbox.codearts import BuildApi, CheckApi
from bridge.sandbox.control_api import ControlApi
from bridge.sandbox.iam import IamApi
from bridge.sandbox.s3 import StorageApi
from bridge.sandbox.state import Behavior, SandboxState
from bridge.sandbox.testnod import SubmissionApi

DEFAULT_PROJECT_TOKEN = "sandbox-project-token"  # noqa: S105  # only valid for the sandbox
DEFAULT_USER = ("sandbox", "sandbox-password", "sandbox")  # name, password and account; only valid for the sandbox
DEFAULT_KEY = ("SANDBOXKEY", "sandbox-secret-key")
MAX_HEADER_BYTES = 128 * 1024  # IAM tokens are documented up to 100,000 characters
CLOSING_SECONDS = 0.5  # hung calls have ended before; other connections are closed
BACKLOG = 1024  # tests open up to a thousand connections at once


class Sandbox:
    """Stand-ins of CodeArts Build, Check, IAM, TestNod and S3, and their control API.

    Port 0 uses a free one. `state` exists after entering the context and stays readable after leaving it.
    """

    state: SandboxState

    def __init__(  # noqa: PLR0913  # six listeners, each with a port
        self,
        *,
        host: str = "127.0.0.1",
        codearts_port: int = 0,
        testnod_port: int = 0,
        s3_port: int = 0,
        control_port: int = 0,
        check_port: int = 0,
        iam_port: int = 0,
        project_token: str = DEFAULT_PROJECT_TOKEN,
        now: Callable[[], float] = time.time,
        behavior: Behavior | None = None,
    ) -> None:
        self.host = host
        self.project_token = project_token
        self._ports = (codearts_port, testnod_port, s3_port, control_port, check_port, iam_port)
        self._now = now
        self._behaviour = behavior or Behavior()
        self._stack = AsyncExitStack()
        self.codearts_url = self.testnod_url = self.s3_url = self.control_url = self.check_url = self.iam_url = ""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            sockets = [stack.enter_context(self._listen(port)) for port in self._ports]
            urls = [f"http://{self.host}:{sock.getsockname()[1]}" for sock in sockets]
            self.codearts_url, self.testnod_url, self.s3_url, self.control_url, self.check_url, self.iam_url = urls
            self.state = SandboxState(
                now=self._now, testnod_url=self.testnod_url, s3_url=self.s3_url, behavior=self._behaviour
            )
            self.state.runs.open_project(self.project_token, "sandbox")
            self.state.accounts.add_user(*DEFAULT_USER)
            self.state.accounts.add_key(*DEFAULT_KEY)
            services = (BuildApi, SubmissionApi, StorageApi, ControlApi, CheckApi, IamApi)
            apps = [service(self.state).application() for service in services]
            for app, sock in zip(apps, sockets, strict=True):
                await _serve(stack, app, sock)
            stack.callback(self.state.closing.set)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _listen(self, port: int) -> socket.socket:
        return socket.create_server((self.host, port), backlog=BACKLOG)


async def _serve(stack: AsyncExitStack, app: web.Application, sock: socket.socket) -> None:
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # storage keeps the bytes as received
        max_field_size=MAX_HEADER_BYTES,
        shutdown_timeout=CLOSING_SECONDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, sock, backlog=BACKLOG).start()


GATEWAY_URL = "http://127.0.0.1:8080"
EXAMPLE_JOB_ID = "0123456789abcdef0123456789abcdef"


def settings_toml(sandbox: Sandbox) -> str:
    """Return a complete settings file for a gateway on this machine that uses the sandbox."""
    storage_host = urlsplit(sandbox.s3_url).hostname
    return f"""\
[server]
host = "127.0.0.1"

[testnod]
base_url = {_quoted(sandbox.testnod_url)}
storage_hosts = [{_quoted(storage_host or "")}]
allow_private_storage = true

[codearts]
endpoint = {_quoted(sandbox.codearts_url)}
auth = "none"

[callers]
auth = "open"

[[routes]]
name = "sandbox"
project_token = {_quoted(sandbox.project_token)}
job_id = "*"
"""


def banner(sandbox: Sandbox) -> str:
    """Return the text that `bridge sandbox` prints: addresses, settings, and commands for a first build."""
    user, password, domain = DEFAULT_USER
    access_key, secret_key = DEFAULT_KEY
    build = f"{EXAMPLE_JOB_ID}/1"
    started = json.dumps({"job_id": EXAMPLE_JOB_ID, "build_no": 1})
    upload = f"{GATEWAY_URL}/v1/report/junit/report/upload?job_id={EXAMPLE_JOB_ID}&build_no=1&node_id=default"
    return f"""\
CodeArts  {sandbox.codearts_url}
Check     {sandbox.check_url}
IAM       {sandbox.iam_url} (user {user}, password {password}, domain {domain}; access key {access_key}, {secret_key})
TestNod   {sandbox.testnod_url}
S3        {sandbox.s3_url}
Control   {sandbox.control_url}

Settings for a gateway (save as bridge.toml, then: bridge serve --config bridge.toml):

{settings_toml(sandbox)}
Start a build, upload a report to the gateway, end the build:

curl -X POST {sandbox.control_url}/builds -d '{started}'
curl -F files=@report.xml '{upload}'
curl -X POST {sandbox.control_url}/builds/{build}/end

Then look at what TestNod received: curl {sandbox.control_url}/runs
"""


def _quoted(text: str) -> str:
    # A TOML basic string is a JSON string, except that JSON does not escape DEL.
    return json.dumps(text).replace("\x7f", "\\u007f")
