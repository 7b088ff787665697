"""Ask CodeArts which builds have ended: at each call that its limits permit, the question that is worth most.

One background task. It reads the open builds in slices, grants polls to builds, whose reconcilers then call build-info,
and makes the calls that list many builds itself. What a list shows is written to the builds, and their reconcilers
decide (docs/decisions/0032-questions-to-codearts.md).
"""

import asyncio
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import field
from typing import Any

import structlog

from bridge.client.codearts import CodeArts
from bridge.domain.build_durations import UNKNOWN, Durations, learn
from bridge.domain.circuit_breaker import CODEARTS, PROBER
from bridge.domain.instants import EPOCH, MINUTE, SECOND, Duration, Instant, after
from bridge.domain.lifecycle.breaker_signals import of_codearts
from bridge.domain.outcomes import (
    CodeArtsFailure,
    CredentialsRejected,
    NoSuchBuild,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from bridge.domain.policy import Policy
from bridge.domain.poll_questions import OpenJob, Question, QuestionBook, mark_finished
from bridge.domain.request_rate import REFUSED_FOR, Api, latest_slot
from bridge.errors import BridgeError, Unavailable
from bridge.store.circuit_breakers import all_breakers
from bridge.store.open_builds import (
    FinishedBuild,
    OpenBuildRow,
    PollGrant,
    count_waiting,
    grant_polls,
    read_durations,
    read_job,
    read_projects,
    read_slice,
    record_finished,
)
from bridge.store.request_rates import QuestionClaim, asked_since, claim_questions
from bridge.values import dataclass
from bridge.worker.build_lists import ListFetcher, ProjectJobs
from bridge.worker.config import WorkerConfig
from bridge.worker.request_rates import RequestRates

LOOK_INTERVAL = SECOND
"""Between two looks at the ledger: builds may have been accepted, also by another gateway."""

MIN_TURN = Duration(SECOND // 20)
SLOTS_AHEAD = SECOND  # slots are taken for this long at once, which saves writes if the rate is high
SLICE = 2_000  # open builds that one turn reads: more take more turns, and no turn takes long
LEARNED_JOBS = 25  # jobs whose durations one turn reads
LEARNED_AGAIN = Duration(10 * MINUTE)
MAX_JOBS = 20_000  # whose durations and projects are remembered
MAX_CALLS = 16  # lists at once
RETRY_LIST = Duration(MINUTE)  # after a list failed
REFUSED_JOBS = 3  # that many jobs refused in a row, and none listed: the account may list no job

PROBING_BUILDS = 4
"""Builds that wait for an open breaker, so that one of them probes it: not one alone, whose own fault it may be."""

LISTS = (Api.JOB_LIST, Api.RECORD_LIST)
NO_SUCH_API = 404  # another list of the account would be answered the same

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class PollerWaker:
    """Wakes the poller, for components that are there before it."""

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: OrderedDict[str, None] = field(default_factory=OrderedDict)  # to read before the next turn

    def wake(self, job_id: str) -> None:
        """Look at the open builds of a job now."""
        self.jobs[job_id] = None
        self.woken.set()


class StatusPoller:
    """One loop until the worker stops. `config` returns what each turn uses."""

    def __init__(
        self,
        config: Callable[[], WorkerConfig],
        waker: PollerWaker,
        wake_dispatcher: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._waker = waker
        self._wake_dispatcher = wake_dispatcher
        self._database, self._clock, self._stopping = config().database, config().clock, config().stopping
        self._intervals = _intervals(config().policy)
        self._book = self._new_book()
        self._look_at = EPOCH
        self._latest = EPOCH  # of the times that were read, by the ledger's clock
        self._may_ask = False
        self._after = ""  # the last job that was read
        self._seen: set[str] = set()  # jobs of the slices since the first one
        self._durations: OrderedDict[str, tuple[Durations, Instant]] = OrderedDict()
        self._projects: OrderedDict[str, str] = OrderedDict()
        self._to_learn: OrderedDict[str, None] = OrderedDict()
        self._unlistable: OrderedDict[str, Instant] = OrderedDict()  # jobs, and until when
        self._refused: dict[Api, set[str]] = defaultdict(set)  # jobs or projects, since the last success
        self._slots: dict[Api, deque[Instant]] = {api: deque() for api in LISTS}
        self._granted_until = EPOCH
        self._calls: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Wake the loop, so that it sees that the worker stops."""
        self._waker.woken.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """Ask until the worker stops."""
        try:
            while not self._stopping.is_set():
                beat()
                self._waker.woken.clear()
                try:
                    next_at = await self.turn()
                except Unavailable as error:
                    log.warning("ledger_read_retried", error=str(error))
                    next_at = after(self._clock.now(), LOOK_INTERVAL)
                await self._clock.wait(self._stopping, self._clock.now() + MIN_TURN)
                if not self._stopping.is_set():
                    latest = after(self._clock.now(), LOOK_INTERVAL)  # also if the clock was set back meanwhile
                    await self._clock.wait(self._waker.woken, min(next_at, latest))
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def turn(self) -> Instant:
        """Look at the ledger if it is time, and ask what may be asked now; return when to do so again."""
        config = self._config()
        codearts, rates = config.clients.codearts, config.rates
        if codearts is None or rates is None or rates.are_plentiful:
            return after(self._clock.now(), LOOK_INTERVAL)
        now = self._database.now()
        if now < self._latest:  # the clock was set back: what is known by times after now would wait for them
            self._forget()
        self._latest = now
        if now >= self._look_at:
            self._look_at = after(now, LOOK_INTERVAL)
            await self._look(rates)
        while self._waker.jobs:
            job_id, _ = self._waker.jobs.popitem(last=False)
            await self._put({job_id: await self._database.read(read_job, job_id)}, rates)
        next_at = [self._look_at]
        if self._may_ask:
            next_at.append(await self._ask(Api.JOB_LIST, codearts, rates))
            next_at.append(await self._grant_due(rates))
            next_at.append(await self._ask(Api.RECORD_LIST, codearts, rates))
        ahead = Duration(self._clock.now() - self._database.now())
        return after(min(next_at), ahead)

    def _now(self) -> Instant:
        """Return the ledger's time. `turn` notices if it is set back, also if it was ahead only within one turn."""
        now = self._database.now()
        self._latest = max(self._latest, now)
        return now

    async def finish_calls(self) -> None:
        """Wait for the lists that are being fetched."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def _look(self, rates: RequestRates) -> None:
        """Read rates, breakers and a slice of the open builds; decide whether CodeArts may be asked."""
        config, now = self._config(), self._now()
        if (intervals := _intervals(config.policy)) != self._intervals:
            self._intervals = intervals
            self._forget()
        await rates.refresh()
        self._book.may_list = not _is_refused(rates, Api.RECORD_LIST, now)
        await self._read_builds(rates)
        breakers = await self._database.read(all_breakers)
        rejected = config.own_faults.unusable(config.clients.credential_digests, now)
        self._may_ask = not breakers.paused_reason and CODEARTS not in rejected
        if self._may_ask and breakers.open_breaker(CODEARTS) is not None:
            self._may_ask = False
            waiting = await self._database.read(count_waiting, CODEARTS, PROBING_BUILDS)
            await self._grant(PROBING_BUILDS - waiting, now, rates)

    def _forget(self) -> None:
        """Read all open builds again, and begin to ask as after a start."""
        self._look_at, self._granted_until = EPOCH, EPOCH
        self._after, self._seen = "", set()
        self._book = self._new_book()
        self._unlistable.clear()
        for slots in self._slots.values():
            slots.clear()

    # -- the open builds ---------------------------------------------------------------------------------------------

    def _new_book(self) -> QuestionBook:
        initial, least, most = self._intervals
        return QuestionBook(initial_delay=initial, min_interval=least, max_interval=most)

    async def _read_builds(self, rates: RequestRates) -> None:
        rows, is_last = await self._database.read(read_slice, self._after, SLICE)
        by_job: dict[str, list[OpenBuildRow]] = defaultdict(list)
        for row in rows:
            by_job[row.job_id].append(row)
        await self._put(by_job, rates)
        self._seen |= by_job.keys()
        self._after = rows[-1].job_id if rows and not is_last else ""
        if is_last:
            for job_id in self._book.jobs.keys() - self._seen:
                self._book.drop(job_id)
            self._seen = set()
        if self._to_learn:
            await self._learn_durations(rates)

    async def _put(self, by_job: dict[str, list[OpenBuildRow]], rates: RequestRates) -> None:
        """Put the open builds of jobs into the book, unless it has them as they are."""
        now = self._now()
        asked = await self._asked_by_others(by_job)
        await self._find_projects(by_job)
        for job_id, rows in by_job.items():
            before = self._book.jobs.get(job_id)
            job = self._job(job_id, rows, before, asked.get(_subject_of_job(job_id), EPOCH), now)
            if before is None or _differs(job, before):
                self._book.put(job, now, self._per_minute(rates, now))

    def _job(
        self, job_id: str, rows: list[OpenBuildRow], before: OpenJob | None, asked_at: Instant, now: Instant
    ) -> OpenJob:
        known = {} if before is None else dict(zip(before.ids, before.seen, strict=True))
        durations = self._durations.get(job_id)
        if durations is None or durations[1] < now - LEARNED_AGAIN:
            self._to_learn[job_id] = None
        return OpenJob(
            job_id=job_id,
            route=rows[-1].route if rows else "",
            project_id=self._projects.get(job_id, ""),
            ids=array("q", (row.id for row in rows)),
            started=array("q", (row.began_at for row in rows)),
            # What is known may be later than now, if the clock was set back.
            seen=array("q", (max(row.seen_at, min(max(known.get(row.id, 0), asked_at), now)) for row in rows)),
            accepted_at=min((row.accepted_at for row in rows), default=EPOCH),
            requested=frozenset(row.id for row in rows if row.is_requested_after(known.get(row.id, 0))),
            asked_at=min(max(asked_at, before.asked_at if before else EPOCH), now),
            finished_at=before.finished_at if before else None,
            durations=durations[0] if durations else UNKNOWN,
            may_list=self._unlistable.get(job_id, EPOCH) <= now,
            unlisted=before.unlisted if before else frozenset(),
        )

    async def _asked_by_others(self, by_job: Iterable[str]) -> dict[str, Instant]:
        if not self._database.shared:
            return {}
        return await self._database.read(asked_since, [_subject_of_job(job_id) for job_id in by_job])

    async def _find_projects(self, by_job: dict[str, list[OpenBuildRow]]) -> None:
        """Read the projects of jobs that are new, from the record of a build."""
        described = {
            job_id: next((row.id for row in reversed(rows) if row.described_at is not None), None)
            for job_id, rows in by_job.items()
            if job_id not in self._projects
        }
        ids = [build_id for build_id in described.values() if build_id is not None]
        if ids:
            found = await self._database.read(read_projects, ids)
            for job_id in (job_id for job_id, build_id in described.items() if build_id is not None):
                _remember(self._projects, job_id, found.get(job_id, ""))

    async def _learn_durations(self, rates: RequestRates) -> None:
        job_ids = [self._to_learn.popitem(last=False)[0] for _ in range(min(LEARNED_JOBS, len(self._to_learn)))]
        now = self._now()
        for job_id, found in (await self._database.read(read_durations, job_ids)).items():
            _remember(self._durations, job_id, (learn(found), now))
            if (job := self._book.jobs.get(job_id)) is not None:
                job.durations = self._durations[job_id][0]
                self._book.put(job, now, self._per_minute(rates, now))

    @staticmethod
    def _per_minute(rates: RequestRates, now: Instant) -> float:
        """Return how many questions are possible in a minute."""
        apis = (api for api in (Api.RECORD_LIST, Api.BUILD_INFO) if not _is_refused(rates, api, now))
        return sum(rates.rate(api, now).per_minute for api in apis)

    # -- polls of single builds --------------------------------------------------------------------------------------

    async def _grant_due(self, rates: RequestRates) -> Instant:
        """Grant as many polls as build-info may be called now; return when to look at that again."""
        now = self._now()
        rate = rates.rate(Api.BUILD_INFO, now)
        if self._book.choose(Api.BUILD_INFO, now) is None:
            return self._next_question()
        free_at = max(rate.next_at, min(self._granted_until, after(now, rate.interval)))
        if free_at > now:
            return free_at
        count = 1 + (int(min(LOOK_INTERVAL, now - free_at) / rate.interval) if self._granted_until else 0)
        await self._grant(count, now, rates)
        self._granted_until = after(now, rate.interval)
        return self._granted_until

    async def _grant(self, count: int, now: Instant, rates: RequestRates) -> None:
        """Grant polls to the builds that build-info is worth most for."""
        granted = False
        for _ in range(count):
            question = self._book.choose(Api.BUILD_INFO, now)
            if question is None:
                break
            job = self._book.jobs[question.job_id]
            index = job.ids.index(question.build_id)
            grant = PollGrant(build_id=question.build_id, seen_at=Instant(job.seen[index]))
            job.seen[index] = max(job.seen[index], now)
            job.requested -= {question.build_id}
            self._book.asked(question, now, self._per_minute(rates, now))
            granted |= await self._database.write(grant_polls, grant)
        if granted:
            self._wake_dispatcher()

    def _next_question(self) -> Instant:
        """Return when the next question is worth a call, if none of those that are now can be asked."""
        return self._book.next_worth_at() or self._look_at

    # -- lists -------------------------------------------------------------------------------------------------------

    async def _ask(self, api: Api, codearts: CodeArts, rates: RequestRates) -> Instant:
        """Make the calls to `api` whose slots have come; return when to look at that again."""
        now, slots = self._now(), self._slots[api]
        if _is_refused(rates, api, now):
            return self._look_at
        if slots and slots[0] > latest_slot(rates.rate(api, now), now):  # the clock was set back
            slots.clear()
        while slots and slots[0] <= now and len(self._calls) < MAX_CALLS:
            slots.popleft()
            if (question := self._book.choose(api, now)) is not None:
                self._mark_asked(question, now, rates)
                self._start(self._fetch(question, codearts, rates))
        if not slots and self._book.choose(api, now) is not None:
            ahead = max(1, SLOTS_AHEAD // rates.rate(api, now).interval)
            slots.extend(await rates.take_slots(api, min(ahead, len(self._book.jobs))))
        return slots[0] if slots else self._next_question()

    def _mark_asked(self, question: Question, now: Instant, rates: RequestRates) -> None:
        if question.project_id:
            self._book.project(question.project_id).asked_at = now
        else:
            self._book.asked(question, now, self._per_minute(rates, now))

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._waker.woken.set()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, BridgeError):
            log.warning("ledger_read_retried", error=str(error))
        elif error is not None:
            log.error("list_failed", exc_info=error)

    async def _fetch(self, question: Question, codearts: CodeArts, rates: RequestRates) -> None:
        """Fetch a list, unless another gateway just did, and record what it shows."""
        by_project = question.api is Api.JOB_LIST
        subject = _subject_of_project(question.project_id) if by_project else _subject_of_job(question.job_id)
        if self._database.shared:
            claim = QuestionClaim(subject=subject, interval=self._intervals[1])
            if not await self._database.write(claim_questions, claim):
                return
        fetcher = ListFetcher(
            codearts=codearts, rates=rates, database=self._database, clock=self._clock, stopping=self._stopping
        )
        if by_project:
            await self._list_jobs(question.project_id, fetcher)
        else:
            await self._list_builds(question.job_id, fetcher)

    async def _list_builds(self, job_id: str, fetcher: ListFetcher) -> None:
        """List the builds of a job, and record those of the open ones that have ended."""
        rows = {row.build_no: row for row in await self._database.read(read_job, job_id)}
        if not rows:
            self._book.drop(job_id)
            return
        requested_at = self._now()
        outcome = await fetcher.builds_of(job_id, rows.values())
        if not isinstance(outcome, list):
            await self._record_failure(Api.RECORD_LIST, job_id, outcome, fetcher.rates)
            return
        self._refused[Api.RECORD_LIST].clear()
        self._unlistable.pop(job_id, None)
        listed = {rows[build.build_no].id: build for build in outcome}
        job = self._book.jobs.get(job_id)
        seen = {} if job is None else dict(zip(job.ids, job.seen, strict=True))
        for row in rows.values():
            if row.id in listed and listed[row.id].finished:
                finished = FinishedBuild(
                    build_id=row.id,
                    listed_at=requested_at,
                    running_at=Instant(min(requested_at, seen.get(row.id, row.seen_at))),
                    result=listed[row.id].result,
                )
                await self._database.write(record_finished, finished)
        if any(build.finished for build in listed.values()):
            self._wake_dispatcher()
        if job is not None and self._book.jobs.get(job_id) is job:
            job.note_listed(listed=listed.keys(), at=requested_at)
            now = self._now()
            self._book.put(job, now, self._per_minute(fetcher.rates, now))
        await self._put({job_id: await self._database.read(read_job, job_id)}, fetcher.rates)

    async def _list_jobs(self, project_id: str, fetcher: ListFetcher) -> None:
        """List the jobs of a project: those that run nothing come next, and are asked about by their own lists."""
        project, requested_at = self._book.project(project_id), self._now()
        outcome = await fetcher.jobs_of(project_id)
        if not isinstance(outcome, ProjectJobs):
            project.asked_at = after(requested_at, _retry_after(outcome))
            await self._record_failure(Api.JOB_LIST, project_id, outcome, fetcher.rates)
            return
        self._refused[Api.JOB_LIST].clear()
        project.pages = outcome.pages
        now = self._now()
        of_project = [job for job in self._book.jobs.values() if job.project_id == project_id]
        for job in mark_finished(of_project, outcome.finished, outcome.running, requested_at):
            self._book.put(job, now, self._per_minute(fetcher.rates, now))

    async def _record_failure(self, api: Api, subject: str, outcome: CodeArtsFailure, rates: RequestRates) -> None:
        """Record what a failure shows of CodeArts, and of whether this list can be used."""
        if isinstance(outcome, Throttled):
            self._slots[api].clear()
            return
        if isinstance(outcome, CredentialsRejected):
            for name, signal, reason in of_codearts(outcome):
                await self._config().send_signal(name, signal, reason, PROBER)
            return
        self._leave_to_build_info(subject, after(self._now(), _retry_after(outcome)))
        if _is_refusal(outcome):
            log.warning("list_refused", api=api.value, subject=subject, reason=outcome.message)
            self._refused[api].add(subject)
            missing = isinstance(outcome, Rejected) and outcome.status == NO_SUCH_API
            if missing or len(self._refused[api]) >= REFUSED_JOBS:
                self._refused[api].clear()
                await rates.record_refused(api)
                self._look_at = EPOCH

    def _leave_to_build_info(self, subject: str, until: Instant) -> None:
        _remember(self._unlistable, subject, until)
        if (job := self._book.jobs.get(subject)) is not None:
            job.may_list = False


def _intervals(policy: Policy) -> tuple[Duration, Duration, Duration]:
    return policy.poll_initial_delay, policy.poll_min_interval, policy.poll_max_interval


def _is_refused(rates: RequestRates, api: Api, now: Instant) -> bool:
    return (rates.rate(api, now).refused_until or EPOCH) > now


def _is_refusal(outcome: CodeArtsFailure) -> bool:
    """Return whether CodeArts has answered, and will answer the same again."""
    unreadable = isinstance(outcome, OutcomeUnknown) and outcome.status == 200
    return unreadable or isinstance(outcome, Rejected | NoSuchBuild)


def _retry_after(outcome: CodeArtsFailure) -> Duration:
    return REFUSED_FOR if _is_refusal(outcome) else RETRY_LIST


def _subject_of_job(job_id: str) -> str:
    return f"job:{job_id}"


def _subject_of_project(project_id: str) -> str:
    return f"project:{project_id}"


def _differs(job: OpenJob, before: OpenJob) -> bool:
    """Return whether a job has changed in what its questions depend on."""
    return (
        job.ids != before.ids
        or job.seen != before.seen
        or job.requested != before.requested
        or job.may_list != before.may_list
        or job.project_id != before.project_id
        or job.route != before.route
    )


def _remember(known: OrderedDict[str, Any], key: str, value: object) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_JOBS:
        known.popitem(last=False)
