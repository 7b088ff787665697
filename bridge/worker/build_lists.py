"""Fetch the lists of CodeArts that show many builds at once: the builds of a job, the jobs of a project."""

import asyncio
from collections.abc import Collection

from bridge.client.codearts import CodeArts
from bridge.clock import Clock
from bridge.domain.instants import HOUR, Duration, Instant
from bridge.domain.outcomes import BuildsListed, CodeArtsFailure, JobsListed, ListedBuild
from bridge.domain.request_rate import Api, latest_slot
from bridge.protocols.codearts_lists import PAGE_SIZE
from bridge.store.engine.base import Database
from bridge.store.open_builds import OpenBuildRow
from bridge.values import dataclass
from bridge.worker.request_rates import RequestRates

MAX_PAGES = 10
"""Of one list; builds and jobs beyond are asked about one by one."""

MAX_UPLOAD_DELAY = Duration(12 * HOUR)
"""A build whose start is not known began at most this long before its first report, as far as the list goes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectJobs:
    """The jobs of a project that run something, those that do not, and how many calls it took to list them."""

    running: frozenset[str]
    finished: frozenset[str]
    pages: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFetcher:
    """Fetches lists page by page. The caller has taken the slot of the first page."""

    codearts: CodeArts
    rates: RequestRates
    database: Database
    clock: Clock
    stopping: asyncio.Event

    async def builds_of(self, job_id: str, wanted: Collection[OpenBuildRow]) -> list[ListedBuild] | CodeArtsFailure:
        """Return those of the wanted builds that the list of a job shows."""
        numbers = {row.build_no for row in wanted}
        since = min(
            Instant(row.accepted_at - MAX_UPLOAD_DELAY) if row.started_at is None else row.began_at for row in wanted
        )
        found: dict[int, ListedBuild] = {}
        for page in range(MAX_PAGES):
            sent_at = self.database.now()
            outcome = await self.codearts.record_list(job_id, since, sent_at, page=page)
            await self.rates.record(Api.RECORD_LIST, outcome, sent_at)
            if not isinstance(outcome, BuildsListed):
                return outcome
            found |= {build.build_no: build for build in outcome.builds if build.build_no in numbers}
            is_last = len(outcome.builds) < PAGE_SIZE or (outcome.pages is not None and page + 1 >= outcome.pages)
            if is_last or len(found) == len(numbers) or not await self._wait_for_slot(Api.RECORD_LIST):
                break
        return list(found.values())

    async def jobs_of(self, project_id: str) -> ProjectJobs | CodeArtsFailure:
        """Return the state of the jobs of a project."""
        states: dict[bool, set[str]] = {True: set(), False: set()}
        pages = 1
        for page in range(MAX_PAGES):
            sent_at = self.database.now()
            outcome = await self.codearts.job_list(project_id, page=page)
            await self.rates.record(Api.JOB_LIST, outcome, sent_at)
            if not isinstance(outcome, JobsListed):
                return outcome
            for job in outcome.jobs:
                if job.finished is not None:
                    states[job.finished].add(job.job_id)
            pages = max(1, -(-(outcome.total or 0) // PAGE_SIZE))
            if page + 1 >= pages or not await self._wait_for_slot(Api.JOB_LIST):
                break
        return ProjectJobs(running=frozenset(states[False]), finished=frozenset(states[True]), pages=pages)

    async def _wait_for_slot(self, api: Api) -> bool:
        """Wait for the slot of a further page; return whether it came before the worker stops."""
        (slot_at,) = await self.rates.take_slots(api, 1)
        now = self.database.now()
        slot_at = min(slot_at, latest_slot(self.rates.rate(api, now), now))  # the clock may have been set back
        await self.clock.wait(self.stopping, slot_at + self.clock.now() - now)
        return not self.stopping.is_set()
