"""Runs one build over HTTP as CI would, and follows it until TestNod has processed it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr

from bridge.app.gateway import Gateway
from bridge.demo.builds import DemoBuild
from bridge.demo.postgres import PostgresServer
from bridge.demo.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server
from bridge.sandbox.runs import State
from bridge.sandbox.sandbox import Sandbox, settings_toml
from bridge.settings import Settings, load
from bridge.settings.model import AdminSettings, PollingSettings, S3Settings
from bridge.values import dataclass

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
    base = f"s3://{BUCKET}" if server else folder
    store = {
        "url": url,
        "spool": f"{base}/spool",
        "archive": f"{base}/archive",
        "min_free_space": MIN_FREE_BYTES,
    }
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


POLL_SECONDS = 0.05  # between two polls; the resolution of the table
UPLOAD_PATH = "/v1/report/junit/report/upload"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The progress of a build; None for what is not known yet."""

    build: DemoBuild
    status: str = "waiting"  # then building, ended, and the status of its TestNod runs
    reports: int | None = None
    tests: int | None = None
    failures: int | None = None  # failures and errors
    test_run_ids: tuple[int, ...] = ()
    finalize_seconds: float | None = None  # from the build's end to the first finalize

    @property
    def processed(self) -> bool:
        return self.status == State.PROCESSED


class BuildPlayer:
    """CI for one build; `progress` is a frozen value that may be read at any time."""

    def __init__(self, http: aiohttp.ClientSession, environment: DemoEnvironment, build: DemoBuild) -> None:
        self.progress = Progress(build=build)
        self._http = http
        self._environment = environment
        self._build = build

    async def play(self) -> None:
        """Start the build, upload its reports node by node, end it, and return when its runs are processed.

        Returns early with the status "rejected" if the gateway rejects a report.
        """
        record = {"branch": self._build.branch}
        started = {"job_id": self._build.job_id, "build_no": self._build.build_no, "record": record}
        await self._control("/builds", started)
        self._update(status="building")
        for node_id, files in self._build.uploads.items():
            if not await self._upload(node_id, files):
                self._update(status="rejected")
                return
            await self._count()
        await self._control(f"/builds/{self._build.key}/end", {"build_result": self._build.build_result})
        ended_at = time.time_ns() // 1000
        self._update(status="ended")
        await self._follow(ended_at)

    async def why(self) -> str:
        """Return the gateway's own explanation of the build's state."""
        answer = await self._get(f"{self._environment.admin_url}/api/v1/why")
        return str(answer["sentence"])

    async def _upload(self, node_id: str, files: Mapping[str, bytes]) -> bool:
        form = aiohttp.FormData(quote_fields=False)
        for name, body in files.items():
            form.add_field("files", body, filename=name, content_type="text/xml")
        params = {**self._params(), "node_id": node_id}
        async with self._http.post(self._environment.server_url + UPLOAD_PATH, params=params, data=form) as answer:
            return answer.status == 200

    async def _count(self) -> None:
        """Read the counts that the gateway stored."""
        answer = await self._get(f"{self._environment.admin_url}/api/v1/builds")
        reports: list[Mapping[str, Any]] = answer["builds"][0]["reports"]
        self._update(
            reports=len(reports),
            tests=sum(report["tests"] for report in reports),
            failures=sum(report["failures"] + report["errors"] for report in reports),
        )

    async def _follow(self, ended_at: int) -> None:
        while not self.progress.processed:
            await asyncio.sleep(POLL_SECONDS)
            params = {"build_id": self._build.testnod_build_id}
            async with self._http.get(f"{self._environment.control_url}/runs", params=params) as answer:
                runs: list[Mapping[str, Any]] = (await answer.json())["runs"]
            self._update_runs(runs, ended_at)

    def _update_runs(self, runs: list[Mapping[str, Any]], ended_at: int) -> None:
        if not runs:
            return
        unfinished = [run["status"] for run in runs if run["status"] != State.PROCESSED]
        finalized = [at for run in runs for at in run["finalize_calls"]]
        self._update(
            status=unfinished[0] if unfinished else State.PROCESSED,
            test_run_ids=tuple(run["id"] for run in runs),
            finalize_seconds=(min(finalized) - ended_at) / 1_000_000 if finalized else None,
        )

    async def _control(self, path: str, body: Mapping[str, object]) -> None:
        async with self._http.post(self._environment.control_url + path, json=body) as answer:
            answer.raise_for_status()

    async def _get(self, url: str) -> Any:
        async with self._http.get(url, params=self._params()) as answer:
            answer.raise_for_status()
            return await answer.json()

    def _params(self) -> dict[str, str]:
        return {"job_id": self._build.job_id, "build_no": str(self._build.build_no)}

    def _update(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)
