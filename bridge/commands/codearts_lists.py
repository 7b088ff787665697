"""CodeArts' lists for commands: the builds of a job over a long time, and the jobs of a project.

Calls are paced at half the rate of `polling.requests_per_minute`, because a gateway uses the same account.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field
from functools import partial
from typing import Final, TypeVar

from bridge.app.config_mapping import to_credentials, to_outbound_proxy
from bridge.client.codearts import CodeArts
from bridge.client.iam import IAM_HEADER_BYTES, Iam
from bridge.client.session import GuardedSession
from bridge.clock import SystemClock
from bridge.domain.instants import Duration, Instant, after
from bridge.domain.outcomes import (
    BuildsListed,
    CodeArtsFailure,
    JobsListed,
    ListedBuild,
    ListedJob,
    NotSent,
    OutcomeUnknown,
    Throttled,
)
from bridge.errors import BridgeError
from bridge.protocols.codearts_lists import MAX_WINDOW, PAGE_SIZE, WINDOW_MARGIN
from bridge.settings import Settings
from bridge.values import dataclass

WINDOW: Final = Duration(MAX_WINDOW - 2 * WINDOW_MARGIN)
"""Of one list of builds: the margins on both sides make it 31 days, which is the most that CodeArts lists."""

MAX_PAGES: Final = 100
MAX_ATTEMPTS: Final = 6
SHARE: Final = 0.5  # of polling.requests_per_minute
MAX_PAUSE_SECONDS: Final = 60.0

Listed = TypeVar("Listed", BuildsListed, JobsListed)


@dataclass(kw_only=True, slots=True)
class CodeArtsLists:
    """Lists, page by page; every method raises BridgeError if CodeArts does not list them."""

    codearts: CodeArts
    pause: float  # seconds between two calls
    _first: bool = field(default=True)

    async def builds_of(self, job_id: str, since: Instant, until: Instant) -> list[ListedBuild]:
        """Return the builds of a job that started between two instants, each once."""
        found: dict[int, ListedBuild] = {}
        start = since
        while start < until:
            end = min(after(start, WINDOW), until)
            for page in range(MAX_PAGES):
                what = f"the builds of job {job_id}"
                listed = await self._ask(what, partial(self.codearts.record_list, job_id, start, end, page=page))
                found |= {build.build_no: build for build in listed.builds}
                if len(listed.builds) < PAGE_SIZE or (listed.pages is not None and page + 1 >= listed.pages):
                    break
            start = end
        # A window has builds of the days beside it, too.
        return [build for build in found.values() if build.started_at is None or since <= build.started_at <= until]

    async def jobs_of(self, project_id: str) -> list[ListedJob]:
        """Return the jobs of a project."""
        found: dict[str, ListedJob] = {}
        for page in range(MAX_PAGES):
            what = f"the jobs of project {project_id}"
            listed = await self._ask(what, partial(self.codearts.job_list, project_id, page=page))
            found |= {job.job_id: job for job in listed.jobs}
            if len(listed.jobs) < PAGE_SIZE or (listed.total is not None and (page + 1) * PAGE_SIZE >= listed.total):
                break
        return list(found.values())

    async def _ask(self, what: str, call: Callable[[], Awaitable[Listed | CodeArtsFailure]]) -> Listed:
        """Return the page that a call lists; repeat a call that CodeArts throttled or did not answer."""
        pause, attempts = self.pause, 0
        while True:
            if not self._first:
                await asyncio.sleep(pause)
            self._first = False
            outcome = await call()
            if isinstance(outcome, BuildsListed | JobsListed):
                return outcome
            attempts += 1
            if attempts == MAX_ATTEMPTS or not isinstance(outcome, Throttled | NotSent | OutcomeUnknown):
                raise BridgeError(f"CodeArts did not list {what}: {outcome.message}")
            pause = min(max(2 * pause, 1.0), MAX_PAUSE_SECONDS)


@asynccontextmanager
async def open_lists(settings: Settings) -> AsyncIterator[CodeArtsLists]:
    """Yield the lists that the credentials of `[codearts]` can read; raise BridgeError if there is no endpoint."""
    codearts = settings.codearts
    if not codearts.endpoint:
        raise BridgeError("codearts.endpoint is not set, so CodeArts cannot be asked. Set it, with credentials.")
    outbound = await asyncio.to_thread(to_outbound_proxy, settings)
    async with AsyncExitStack() as stack:
        iam = None
        if codearts.auth == "password" and codearts.iam_url:
            session = GuardedSession("iam", outbound_proxy=outbound, header_bytes=IAM_HEADER_BYTES)
            iam = Iam(await stack.enter_async_context(session), codearts.iam_url)
        session = await stack.enter_async_context(GuardedSession("codearts", outbound_proxy=outbound))
        client = CodeArts(session, codearts.endpoint, to_credentials(settings, iam, SystemClock()))
        yield CodeArtsLists(codearts=client, pause=60.0 / (SHARE * settings.polling.requests_per_minute))
