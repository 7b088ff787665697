"""Runs one build over HTTP as CI would, and follows it until TestNod has processed it."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from bridge.demo.builds import DemoBuild
from bridge.demo.environment import DemoEnvironment
from bridge.sandbox.runs import State

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
