"""The demo's environment: a sandbox and a gateway that uses it, on free ports."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from bridge.app.gateway import Gateway
from bridge.demo.postgres import PostgresServer
from bridge.demo.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server
from bridge.sandbox.sandbox import Sandbox, settings_toml
from bridge.settings import Settings, load
from bridge.settings.model import AdminSettings, PollingSettings, S3Settings

POLLING = PollingSettings(
    # Shorter than settings allow, so that the demo takes seconds.
    initial_delay=timedelta(milliseconds=200),
    min_interval=timedelta(milliseconds=200),
    max_interval=timedelta(milliseconds=500),
    requests_per_minute=3_000,
    grace_period=timedelta(milliseconds=500),
)
MIN_FREE_BYTES = 16 * 1024 * 1024  # a demo takes less than a megabyte, so it also runs on a nearly full disk


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoEnvironment:
    """Where the servers listen: URLs without a slash at the end."""

    server_url: str
    admin_url: str
    control_url: str


@asynccontextmanager
async def open_environment(folder: Path, *, postgres: bool, s3: bool) -> AsyncIterator[DemoEnvironment]:
    """Run sandbox and gateway while the context is entered.

    Data is stored in `folder`, or in PostgreSQL and S3 if asked for.
    """
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{folder}/bridge.db"
        server = None
        if postgres:
            url = (await stack.enter_async_context(PostgresServer())).url()
        if s3:
            server = stack.enter_context(S3Server())
        sandbox = await stack.enter_async_context(Sandbox())
        gateway = await stack.enter_async_context(Gateway(_settings(sandbox, folder, url, server)))
        yield DemoEnvironment(
            server_url=gateway.server_url, admin_url=gateway.admin_url, control_url=sandbox.control_url
        )


def _settings(sandbox: Sandbox, folder: Path, url: str, server: S3Server | None) -> Settings:
    path = folder / "bridge.toml"
    path.write_text(settings_toml(sandbox), encoding="utf-8")
    settings = load(path, {})
    place = f"s3://{BUCKET}" if server else folder
    store = {"url": url, "spool": f"{place}/spool", "archive": f"{place}/archive", "min_free_space": MIN_FREE_BYTES}
    return settings.model_copy(
        update={
            "server": settings.server.model_copy(update={"port": 0}),
            "admin": AdminSettings(port=0),
            "store": settings.store.model_copy(update=store),
            "s3": _account(server) if server else settings.s3,
            "polling": POLLING,
        }
    )


def _account(server: S3Server) -> S3Settings:
    keys = {"access_key_id": SecretStr(ACCESS_KEY), "secret_access_key": SecretStr(SECRET_KEY)}
    return S3Settings(endpoint_url=server.url, region=REGION, **keys)
