"""Choose the question to CodeArts that is worth the next call: about a build, a job's builds or a project's jobs.

`QuestionBook` holds the open builds in a few bytes each and returns one question for each call that is possible.
The value of a question is the waiting time that it is expected to end: for each build, the probability that it has
ended since it was last seen running, times half the time since then.
"""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import field
from heapq import heapify, heappop, heappush
from itertools import islice

from bridge.domain.build_durations import UNKNOWN, Durations
from bridge.domain.instants import EPOCH, MINUTE, SECOND, Duration, Instant, after, between
from bridge.domain.request_rate import Api
from bridge.values import dataclass

WORTH_BUDGET = 350 * SECOND
MIN_WORTH, MAX_WORTH = SECOND, 10 * SECOND
"""A question is worth a call if it is expected to end this much waiting, summed over the builds it covers: WORTH_BUDGET
for the calls that are possible in a minute together, between these limits for each."""

SHORT_FACTOR = 3
"""build-info is called for one of a job's open builds only if that build alone is worth a call this many times over:
otherwise the list of the job's builds, which covers all, is soon called."""

PLENTY_SHARE = 0.25
"""If the open builds could all be asked about once in `polling.max_interval` with this share of the calls that are
possible, they are asked about as often as `[polling]` has it."""

MIN_JOBS = 4
"""Jobs of a project that wait for a question: from so many on, the list of the project's jobs is worth a call."""

PROJECT_INTERVAL = Duration(20 * SECOND)
"""At least, between two lists of a project's jobs: the jobs that ended are asked about meanwhile."""

FARTHEST = Duration(60 * MINUTE)
"""No build waits longer than this for a question, however long builds of its job take."""

REQUESTED = 600 * SECOND
"""What a build for which a notice came counts for: it is asked about before all builds without one."""

MAX_STALE = 4  # entries of a job in the queue: each time it is scheduled, the one before becomes stale
SAMPLE = 16  # builds of a job that are evaluated: they stand for all, and others do in the next second
RIVALS = 128  # jobs that a choice compares, of each route those first that have been worth a call for longest
VALUE_AGE = Duration(5 * SECOND)  # a value is computed again after so long

EXACT_TO = 8
"""The time at which a question is worth a call is searched for exactly to this part of the wait, or to a second."""


@dataclass(kw_only=True, slots=True)
class OpenJob:
    """The open builds of one job. `ids`, `started` and `seen` belong together, one entry for each build.

    `seen` is when the build was last known to run: its last report, or CodeArts' answer.
    """

    job_id: str
    route: str = ""
    project_id: str = ""
    ids: "array[int]" = field(default_factory=lambda: array("q"))
    started: "array[int]" = field(default_factory=lambda: array("q"))
    seen: "array[int]" = field(default_factory=lambda: array("q"))
    accepted_at: Instant = EPOCH  # of the oldest
    requested: frozenset[int] = frozenset()  # ids of builds for which a notice came
    asked_at: Instant = EPOCH
    finished_at: Instant | None = None  # the project's list then had no running build of the job
    durations: Durations = UNKNOWN
    may_list: bool = True  # CodeArts lists its builds, as far as is known
    unlisted: frozenset[int] = frozenset()  # ids of builds that the last list lacked
    worth_at: Instant = EPOCH  # when a question is worth a call
    value: float = 0.0  # expected waiting over all builds at `value_at`
    best_id: int = 0  # the build that most probably has ended by then, and its expected waiting
    best_value: float = 0.0
    value_at: Instant = EPOCH

    def waiting(self, index: int, now: Instant) -> float:
        """Return the expected microseconds since the end of a build, 0 for the case that it runs."""
        seen = self.seen[index]
        since = now - seen
        if since <= 0:
            return 0.0
        if self.ids[index] in self.requested:
            return REQUESTED + since
        if self.finished_at is not None and self.finished_at > seen:
            return since
        started = self.started[index]
        return self.durations.ended_between(seen - started, now - started) * since / 2

    def value_of(self, now: Instant) -> float:
        """Return the expected waiting time over all builds, from a sample if they are many."""
        return self.value_over_time(now)(now)

    def value_over_time(self, now: Instant) -> Callable[[Instant], float]:
        """Return a function from later times to the expected waiting time by then, if no question is asked."""
        sampled = self._sampled(now)
        share = len(self.ids) / max(1, len(sampled))
        durations, certain, chances = self.durations, [], []
        for index in sampled:
            seen, started = self.seen[index], self.started[index]
            if self.ids[index] in self.requested:
                certain.append(seen - REQUESTED)
            elif self.finished_at is not None and self.finished_at > seen:
                certain.append(seen)
            else:
                chances.append((seen, started, durations.running_after(seen - started)))

        def value(at: Instant) -> float:
            total = float(sum(max(0, at - since) for since in certain))
            for seen, started, before in chances:
                if at > seen:
                    total += durations.ended_by(at - started, before) * (at - seen) / 2
            return total * share

        return value

    def evaluate(self, now: Instant) -> None:
        """Compute `value`, and the build that most probably has ended."""
        sampled = self._sampled(now)
        waiting = [self.waiting(index, now) for index in sampled]
        self.best_value, best = max(zip(waiting, sampled, strict=True))
        self.best_id = self.ids[best]
        self.value, self.value_at = sum(waiting) * len(self.ids) / len(sampled), now

    def _sampled(self, now: Instant) -> range:
        count = len(self.ids)
        step = max(1, count // SAMPLE)
        return range(now // SECOND % step, count, step)

    def note_listed(self, *, listed: Collection[int], at: Instant) -> None:
        """Record which builds a list that was requested `at` shows; what it lacks is left to build-info."""
        self.unlisted = frozenset(set(self.ids).difference(listed))
        self.requested = self.requested.difference(listed)
        for index, build_id in enumerate(self.ids):
            if build_id in listed:
                self.seen[index] = max(self.seen[index], at)

    def usual_interval(self, least: Duration, most: Duration) -> Duration:
        """Return the interval of `[polling]`: it grows with the time for which the oldest build has been open."""
        return Duration(min(most, max(least, between(self.accepted_at, self.asked_at) // 2)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One call: build-info of `build_id`, the builds of `job_id`, or the jobs of `project_id`."""

    api: Api
    job_id: str = ""
    build_id: int = 0
    project_id: str = ""


_APIS = (Api.BUILD_INFO, Api.RECORD_LIST)  # of questions about a job


@dataclass(kw_only=True, slots=True)
class _Project:
    asked_at: Instant = EPOCH  # after a failure: until when it is not asked
    pages: int = 1


class QuestionBook:
    """The open jobs, in the order in which questions about them are worth a call."""

    def __init__(self, *, initial_delay: Duration, min_interval: Duration, max_interval: Duration) -> None:
        self._initial_delay, self._min_interval, self._max_interval = initial_delay, min_interval, max_interval
        self.jobs: dict[str, OpenJob] = {}
        self.projects: dict[str, _Project] = {}
        self.builds = 0
        self.may_list = True  # whether the account may list the builds of a job
        self._worth: float = MIN_WORTH
        self._later: list[tuple[Instant, str]] = []
        self._ready: dict[str, dict[str, None]] = {}  # by route
        self._turns: dict[Api, OrderedDict[str, None]] = {
            api: OrderedDict() for api in _APIS
        }  # the next route is first
        self._projects_ready: Counter[str] = Counter()

    # -- what is known ---------------------------------------------------------------------------------------------

    def put(self, job: OpenJob, now: Instant, per_minute: float) -> None:
        """Add or replace a job; `per_minute` is how many calls are possible."""
        self.drop(job.job_id)
        if job.ids:
            self.jobs[job.job_id] = job
            self.builds += len(job.ids)
            self._schedule(job, now, per_minute)

    def drop(self, job_id: str) -> None:
        """Remove a job that has no open build."""
        job = self.jobs.pop(job_id, None)
        if job is not None:
            self.builds -= len(job.ids)
            self._unready(job)

    def asked(self, question: Question, now: Instant, per_minute: float) -> None:
        """Record that a question about a job was asked: the next one waits, and other routes come first."""
        job, turns = self.jobs[question.job_id], self._turns[question.api]
        job.asked_at = now
        if job.route in turns:  # of this API alone: else some routes would get its calls, and others those of another
            turns.move_to_end(job.route)
        self._unready(job)
        self._schedule(job, now, per_minute)

    def project(self, project_id: str) -> _Project:
        """Return what is known of a project's list of jobs."""
        return self.projects.setdefault(project_id, _Project())

    def next_worth_at(self) -> Instant | None:
        """Return when a further question is worth a call; None if there is none."""
        return self._later[0][0] if self._later else None

    # -- what is asked ---------------------------------------------------------------------------------------------

    def choose(self, api: Api, now: Instant) -> Question | None:
        """Return the question to `api` that is worth most for the route whose turn it is; None if none is worth it.

        Ask build-info first: the list of a job with one open build is for the time until its next slot.
        """
        self._advance(now)
        if api is Api.JOB_LIST:
            return self._project_question(now)
        turns, compared = self._turns[api], 0
        for _ in range(len(turns)):
            route = next(iter(turns))
            question = self._of_route(route, api, now)
            if question is not None:
                return question
            turns.move_to_end(route)
            compared += len(self._ready[route])
            if compared >= RIVALS:
                break
        return None

    def _of_route(self, route: str, api: Api, now: Instant) -> Question | None:
        best: Question | None = None
        most = 0.0
        for job_id in islice(self._ready[route], RIVALS):
            job = self.jobs[job_id]
            if between(job.value_at, now) >= VALUE_AGE:
                job.evaluate(now)
            if job.value <= most:
                continue
            build_id = 0
            if api is Api.RECORD_LIST:
                value = self._value_of_list(job, now)
            else:
                build_id, value = self._value_of_build(job)
            if value > most:
                best, most = Question(api=api, job_id=job_id, build_id=build_id), value
        return best

    def _value_of_list(self, job: OpenJob, now: Instant) -> float:
        """Return what the list of a job's builds is worth, 0 if it is not worth a call."""
        if not (self.may_list and job.may_list):
            return 0.0
        value = job.value
        if job.unlisted:
            value -= sum(job.waiting(index, now) for index, each in enumerate(job.ids) if each in job.unlisted)
            return value if value >= self._worth else 0.0
        return value

    def _value_of_build(self, job: OpenJob) -> tuple[int, float]:
        """Return the build of a job that build-info is worth most for, and what it is worth, 0 if no call."""
        listed = self.may_list and job.may_list and job.best_id not in job.unlisted
        if listed and len(job.ids) > 1 and job.best_value < SHORT_FACTOR * self._worth:
            return 0, 0.0
        return job.best_id, job.best_value

    def _project_question(self, now: Instant) -> Question | None:
        for project_id, jobs in self._projects_ready.most_common(RIVALS):
            project = self.project(project_id)
            due = between(project.asked_at, now) >= PROJECT_INTERVAL
            if jobs >= MIN_JOBS * project.pages and due:
                return Question(api=Api.JOB_LIST, project_id=project_id)
        return None

    # -- when a question is worth a call -----------------------------------------------------------------------------

    def _schedule(self, job: OpenJob, now: Instant, per_minute: float) -> None:
        job.value_at = EPOCH
        self._worth = min(MAX_WORTH, max(MIN_WORTH, WORTH_BUDGET / per_minute))
        job.worth_at = self._worth_at(job, now, per_minute)
        if job.worth_at <= now:
            self._make_ready(job)
        else:
            if len(self._later) > MAX_STALE * (len(self.jobs) + 1):
                self._later = [(each.worth_at, each.job_id) for each in self.jobs.values() if each.worth_at > now]
                heapify(self._later)
            heappush(self._later, (job.worth_at, job.job_id))

    def _worth_at(self, job: OpenJob, now: Instant, per_minute: float) -> Instant:
        if job.requested:
            return now
        least = max(after(job.asked_at, self._min_interval), after(job.accepted_at, self._initial_delay))
        latest = after(max(least, now), FARTHEST)
        plenty = self.builds <= PLENTY_SHARE * per_minute * self._max_interval / MINUTE
        if plenty:
            usual = after(job.asked_at, job.usual_interval(self._min_interval, self._max_interval))
            latest = max(least, min(latest, usual))
        value = job.value_over_time(now)
        if latest <= now or value(least) >= self._worth:
            return least
        low, high, reach = least, min(latest, after(least, SECOND)), 2 * SECOND
        while high < latest and value(high) < self._worth:
            low, high, reach = high, min(latest, after(least, Duration(reach))), 2 * reach
        while high - low > max(SECOND, (high - least) // EXACT_TO):
            middle = Instant((low + high) // 2)
            low, high = (low, middle) if value(middle) >= self._worth else (middle, high)
        return high

    def _advance(self, now: Instant) -> None:
        while self._later and self._later[0][0] <= now:
            worth_at, job_id = heappop(self._later)
            job = self.jobs.get(job_id)
            if job is not None and job.worth_at == worth_at:
                self._make_ready(job)

    def _make_ready(self, job: OpenJob) -> None:
        if job.route not in self._ready:
            self._ready[job.route] = {}
            for turns in self._turns.values():
                turns[job.route] = None
        jobs = self._ready[job.route]
        if job.job_id not in jobs:
            jobs[job.job_id] = None
            if job.project_id:
                self._projects_ready[job.project_id] += 1

    def _unready(self, job: OpenJob) -> None:
        jobs = self._ready.get(job.route, {})
        if job.job_id in jobs:
            del jobs[job.job_id]
            if not jobs:
                del self._ready[job.route]
                for turns in self._turns.values():
                    del turns[job.route]
            if job.project_id:
                self._projects_ready[job.project_id] -= 1
                if not self._projects_ready[job.project_id]:
                    del self._projects_ready[job.project_id]


def mark_finished(
    jobs: Iterable[OpenJob], finished: Collection[str], running: Collection[str], asked_at: Instant
) -> list[OpenJob]:
    """Return the jobs whose state a project's list has shown, with that state recorded.

    A job that runs nothing has ended its builds; its own list shows that of each. A job with one open build that runs
    most probably runs this build, so that its question can wait.
    """
    changed = []
    for job in jobs:
        if job.job_id in finished:
            job.finished_at = asked_at
        elif job.job_id in running and len(job.ids) == 1:
            job.seen[0] = max(job.seen[0], asked_at)
            job.asked_at = asked_at
        else:
            continue
        changed.append(job)
    return changed
