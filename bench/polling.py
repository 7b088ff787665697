"""Simulate how soon the end of builds is found within CodeArts' limits: this policy, that of 96d5962, fixed polling.

The policy is the real code (`domain/poll_questions.py`, `domain/request_rate.py`, `domain/build_durations.py`) on a
fake clock; CodeArts is simulated with its limits. Always exits with 0. README.md explains the figures.
"""

import argparse
import math
import tracemalloc
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from statistics import median, quantiles
from zlib import crc32

from bridge.domain.build_durations import UNKNOWN, Durations, learn
from bridge.domain.instants import EPOCH, MINUTE, SECOND, Duration, Instant
from bridge.domain.poll_questions import OpenJob, Question, QuestionBook, mark_finished
from bridge.domain.request_rate import Api, RequestRate, admit, count_answered, take_slots, throttle
from bridge.domain.retry import delay_us

BUILDS, JOBS, PROJECTS = 300, 20, 3
CONFIGURED = 50.0  # polling.requests_per_minute
LATENCY = Duration(SECOND // 5)  # of a call, from its start to its answer
GRACE = Duration(10 * SECOND)  # polling.grace_period: from the end as it was found to finalize
INITIAL, LEAST, MOST = Duration(5 * SECOND), Duration(5 * SECOND), Duration(60 * SECOND)
TURN = SECOND
HISTORY = 20  # ended builds of each job that the ledger has from before
PAGE = 100


# -- the world -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class SimulatedBuild:
    """A build; times in microseconds since the simulation began."""

    id: int
    job: str
    project: str
    started: int
    accepted: int
    ended: int
    reports: list[int]
    hooked: bool
    found: int | None = None
    seen: int = 0


@dataclass(kw_only=True)
class World:
    """The builds, and what CodeArts answers within its limit of `per_minute` for each API."""

    builds: list[SimulatedBuild]
    history: dict[str, Durations]
    per_minute: int
    calls: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    late_calls: int = 0  # after the first minute
    late_throttled: int = 0
    _window: Counter[tuple[str, int]] = field(default_factory=Counter)

    def takes(self, api: str, at: int) -> bool:
        """Return whether a call is answered; a window of a minute is shared by all calls of an API."""
        window = (api, (at + crc32(api.encode()) % MINUTE) // MINUTE)
        self._window[window] += 1
        taken = self._window[window] <= self.per_minute
        self.calls[api] += 1
        self.throttled[api] += not taken
        if at > MINUTE:
            self.late_calls += 1
            self.late_throttled += not taken
        return taken


def make_world(seed: int, per_minute: int, hooks: float, *, builds: int = BUILDS, jobs: int = JOBS) -> World:
    """Return builds of jobs with log-normal durations, open side by side, whose reports arrive at any time."""
    random = Random(seed)  # must be repeatable
    medians = [random.uniform(3, 25) * MINUTE for _ in range(jobs)]
    spreads = [random.uniform(0.15, 0.5) for _ in range(jobs)]
    made, history = [], {}
    for job in range(jobs):
        earlier = [medians[job] * math.exp(random.gauss(0, spreads[job])) for _ in range(HISTORY)]
        history[f"job{job:05}"] = learn([int(each) for each in earlier])
    for number in range(builds):
        job = number % jobs
        started = int(random.uniform(-5, 5) * MINUTE)
        duration = medians[job] * math.exp(random.gauss(0, spreads[job]))
        reports = sorted(int(started + duration * random.random()) for _ in range(random.randint(1, 4)))
        made.append(
            SimulatedBuild(
                id=number + 1,
                job=f"job{job:05}",
                project=f"project{job % PROJECTS}" if jobs <= JOBS else f"project{job // 50}",
                started=started,
                accepted=max(0, reports[0]),
                ended=max(int(started + duration), max(0, reports[0]) + SECOND),
                reports=[max(0, at) for at in reports],
                hooked=random.random() < hooks,
            )
        )
    return World(builds=made, history=history, per_minute=per_minute)


class Events:
    """What happens, in the order of time."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = count()

    def at(self, when: int, what: Callable[[int], None]) -> None:
        heappush(self._heap, (when, next(self._order), what))

    def run(self, is_over: Callable[[], bool]) -> int:
        now = 0
        while self._heap and not is_over():
            now, _, what = heappop(self._heap)
            what(now)
        return now


# -- this policy ---------------------------------------------------------------------------------------------------


class Adaptive:
    """The policy of this version, driven as `worker/status_poller.py` drives it."""

    def __init__(self, world: World, configured: float, *, with_history: bool = True) -> None:
        self.world, self.events, self.configured = world, Events(), configured
        self.book = QuestionBook(initial_delay=INITIAL, min_interval=LEAST, max_interval=MOST)
        self.rates = {api: RequestRate(per_minute=configured) for api in Api}
        self.durations = dict(world.history) if with_history else defaultdict(lambda: UNKNOWN)
        self.ended: defaultdict[str, list[int]] = defaultdict(list)
        self.open: defaultdict[str, dict[int, SimulatedBuild]] = defaultdict(dict)
        self.requested: set[int] = set()
        self.by_id = {build.id: build for build in world.builds}
        self.pending: Counter[Api] = Counter()
        self.left = len(world.builds)
        self.turn_at = -1

    def run(self) -> int:
        for build in self.world.builds:
            self.events.at(build.accepted, partial(self._accept, build))
            for at in build.reports[1:]:
                self.events.at(at, partial(self._report, build))
            if build.hooked:
                self.events.at(build.ended, partial(self._hook, build))
        return self.events.run(lambda: self.left == 0)

    @property
    def per_minute(self) -> float:
        return self.rates[Api.RECORD_LIST].per_minute + self.rates[Api.BUILD_INFO].per_minute

    def _accept(self, build: SimulatedBuild, now: int) -> None:
        build.seen = now
        self.open[build.job][build.id] = build
        self.put(build.job, now)
        self._describe(now, now + MINUTE)

    def _describe(self, now: int, until: int) -> None:
        """Fetch record-info once, if its turn comes within a minute."""
        rate, turn = admit(self.rates[Api.RECORD_INFO], Instant(now))
        self.rates[Api.RECORD_INFO] = rate
        if turn is None:
            self._call(Api.RECORD_INFO, now, lambda _: None)
        elif turn < until:
            self.events.at(turn, lambda at: self._describe(at, until))

    def _report(self, build: SimulatedBuild, now: int) -> None:
        build.seen = now
        if build.id in self.open[build.job]:
            self.put(build.job, now)

    def _hook(self, build: SimulatedBuild, now: int) -> None:
        if build.id in self.open[build.job]:
            self.requested.add(build.id)
            self.put(build.job, now)

    def put(self, job_id: str, now: int) -> None:
        builds, before = self.open[job_id], self.book.jobs.get(job_id)
        if not builds:
            self.book.drop(job_id)
            return
        job = OpenJob(
            job_id=job_id,
            route=next(iter(builds.values())).project,
            project_id=next(iter(builds.values())).project,
            ids=array("q", builds),
            started=array("q", (build.started for build in builds.values())),
            seen=array("q", (build.seen for build in builds.values())),
            accepted_at=Instant(min(build.accepted for build in builds.values())),
            requested=frozenset(self.requested & builds.keys()),
            asked_at=before.asked_at if before else EPOCH,
            finished_at=before.finished_at if before else None,
            durations=self.durations[job_id],
        )
        self.book.put(job, Instant(now), self.per_minute)
        self._turn(now)

    def _turn(self, now: int) -> None:
        for api in (Api.JOB_LIST, Api.BUILD_INFO, Api.RECORD_LIST):
            if not self.pending[api] and self.book.choose(api, Instant(now)) is not None:
                self.pending[api] += 1
                self.rates[api], (slot,) = take_slots(self.rates[api], Instant(now), 1)
                self.events.at(slot, partial(self._ask, api))
        if not now < self.turn_at <= now + TURN:
            self.turn_at = now + max(1, min(TURN, (self.book.next_worth_at() or now + TURN) - now))
            self.events.at(self.turn_at, self._turn)

    def _ask(self, api: Api, now: int) -> None:
        self.pending[api] -= 1
        question = self.book.choose(api, Instant(now))
        if question is not None:
            if question.project_id:
                self.book.project(question.project_id).asked_at = Instant(now)
            else:
                self.book.asked(question, Instant(now), self.per_minute)
            self._call(api, now, lambda at: self._answer(question, now, at))
        self._turn(now)

    def _call(self, api: Api, now: int, answered: Callable[[int], None]) -> None:
        taken = self.world.takes(api, now + LATENCY // 2)

        def answer(at: int) -> None:
            if taken:
                self.rates[api] = count_answered(self.rates[api], Instant(at), 1, self.configured, sent_at=Instant(now))
                answered(at)
            else:
                rate = throttle(self.rates[api], Instant(at), sent_at=Instant(now), retry_after_seconds=None)
                self.rates[api] = rate

        self.events.at(now + LATENCY, answer)

    def _answer(self, question: Question, asked: int, now: int) -> None:
        looked = asked + LATENCY // 2
        if question.api is Api.JOB_LIST:
            jobs = [job for job in self.book.jobs.values() if job.project_id == question.project_id]
            running = {b.job for b in self.world.builds if b.started <= looked < b.ended}
            finished = {job.job_id for job in jobs} - running
            for job in mark_finished(jobs, finished, running, Instant(asked)):
                self.book.put(job, Instant(now), self.per_minute)
            self._turn(now)
            return
        builds = self.open[question.job_id]
        asked_about = list(builds.values()) if question.api is Api.RECORD_LIST else [self.by_id[question.build_id]]
        for build in asked_about:
            if build.id not in builds:
                continue
            if build.ended <= looked:
                build.found = now
                self.left -= 1
                self._learn(build, now)
                del builds[build.id]
            else:
                build.seen = max(build.seen, asked)
            self.requested.discard(build.id)
        self.put(question.job_id, now)

    def _learn(self, build: SimulatedBuild, now: int) -> None:
        self.ended[build.job].append((build.seen + now) // 2 - build.started)
        if len(self.ended[build.job]) >= 3:
            self.durations[build.job] = learn(self.ended[build.job][::-1])


# -- policies before -------------------------------------------------------------------------------------------------


class Fixed:
    """Every build is polled every 10 seconds, whatever CodeArts answers."""

    def __init__(self, world: World) -> None:
        self.world, self.events, self.left = world, Events(), len(world.builds)

    def run(self) -> int:
        for build in self.world.builds:
            self.events.at(build.accepted + 10 * SECOND, partial(self._poll, build))
            self.events.at(build.accepted, self._describe)
        return self.events.run(lambda: self.left == 0)

    def _describe(self, now: int) -> None:
        self.world.takes("record_info", now)

    def _poll(self, build: SimulatedBuild, now: int) -> None:
        if self.world.takes("build_info", now) and build.ended <= now:
            build.found = now + LATENCY
            self.left -= 1
        else:
            self.events.at(now + 10 * SECOND, lambda at: self._poll(build, at))


class Before:
    """The policy of 96d5962: each build polls itself, at 600 calls a minute for all; one throttled call stops all."""

    PAUSE = delay_us(3, first_us=SECOND, max_us=10 * MINUTE, salt="slow down")

    def __init__(self, world: World) -> None:
        self.world, self.events, self.left = world, Events(), len(world.builds)
        self.next_at = 0
        self.due: dict[int, int] = {}

    def run(self) -> int:
        for build in self.world.builds:
            self.events.at(build.accepted, partial(self._describe, build, attempts=0))
            self._due(build, build.accepted + INITIAL, 0)
            if build.hooked:
                self.events.at(build.ended, partial(self._due, build, polls=0))
        return self.events.run(lambda: self.left == 0)

    def _slot(self, now: int) -> int:
        slot = max(self.next_at, now)
        self.next_at = slot + SECOND // 10
        return slot

    def _takes(self, api: str, now: int) -> bool:
        taken = self.world.takes(api, now + LATENCY // 2)
        if not taken:
            self.next_at = max(self.next_at, now + LATENCY + self.PAUSE)
        return taken

    def _describe(self, build: SimulatedBuild, now: int, attempts: int) -> None:
        def call(at: int) -> None:
            if not self._takes("record_info", at):
                pause = delay_us(attempts + 1, first_us=SECOND, max_us=10 * MINUTE, salt=f"describe/{build.id}")
                if at + pause < build.accepted + MINUTE:
                    self.events.at(at + pause, lambda again: self._describe(build, again, attempts + 1))

        self.events.at(self._slot(now), call)

    def _due(self, build: SimulatedBuild, at: int, polls: int) -> None:
        self.due[build.id] = at
        self.events.at(at, lambda now: self._poll(build, now, at, polls))

    def _poll(self, build: SimulatedBuild, now: int, due: int, polls: int) -> None:
        if self.due[build.id] == due and build.found is None:
            self.due[build.id] = -1  # its slot is reserved
            self.events.at(self._slot(now), lambda at: self._call(build, at, polls))

    def _call(self, build: SimulatedBuild, now: int, polls: int) -> None:
        if build.found is not None:
            return
        if self._takes("build_info", now) and build.ended <= now + LATENCY // 2:
            build.found = now + LATENCY
            self.left -= 1
            return
        self._due(build, now + LATENCY + min(MOST, int(LEAST * 1.5 ** min(polls, 60))), polls + 1)


# -- figures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a policy reached: lags in seconds from a build's end to the finalize of its run."""

    lags: list[float]
    calls_per_build: float
    throttled_share: float  # of the calls after the first minute
    calls: Counter[str]

    @property
    def p95(self) -> float:
        return quantiles(self.lags, n=20)[-1]


def measure(world: World, policy: Adaptive | Fixed | Before) -> Figures:
    """Run a policy to its end."""
    policy.run()
    lags = [((build.found or 0) + GRACE - build.ended) / SECOND for build in world.builds]
    return Figures(
        lags=lags,
        calls_per_build=world.calls.total() / len(world.builds),
        throttled_share=world.late_throttled / max(1, world.late_calls),
        calls=world.calls,
    )


POLICIES: dict[str, Callable[[World], Adaptive | Fixed | Before]] = {
    "this version": lambda world: Adaptive(world, CONFIGURED),
    "this, unknown jobs": lambda world: Adaptive(world, CONFIGURED, with_history=False),
    "96d5962": Before,
    "every 10 s": Fixed,
}


def run_all(seeds: int) -> Iterator[tuple[int, float, str, Figures]]:
    """Yield the figures of each limit, share of hooks and policy, over all seeds."""
    for per_minute in (10, 50, 120):
        for hooks in (0.0, 0.5, 1.0):
            for name, policy in POLICIES.items():
                runs = []
                for seed in range(seeds):
                    world = make_world(seed, per_minute, hooks)
                    runs.append(measure(world, policy(world)))
                calls: Counter[str] = sum((run.calls for run in runs), Counter())
                yield (
                    per_minute,
                    hooks,
                    name,
                    Figures(
                        lags=[lag for run in runs for lag in run.lags],
                        calls_per_build=sum(run.calls_per_build for run in runs) / seeds,
                        throttled_share=sum(run.throttled_share for run in runs) / seeds,
                        calls=calls,
                    ),
                )


def print_table(rows: list[tuple[int, float, str, Figures]]) -> None:
    print("limit a minute  hooks  policy               median lag      p95      max  calls/build  429s after 1 min")
    for per_minute, hooks, name, figures in rows:
        lags = f"{median(figures.lags):9.1f} s {figures.p95:8.0f} s {max(figures.lags):6.0f} s"
        shares = f"{figures.calls_per_build:11.2f}  {figures.throttled_share:15.1%}"
        print(f"{per_minute:14}  {hooks:5.0%}  {name:19} {lags} {shares}")


def print_targets(rows: list[tuple[int, float, str, Figures]]) -> None:
    """Compare the figures without hooks with the targets of the README."""
    found = {(per_minute, name): figures for per_minute, hooks, name, figures in rows if hooks == 0}
    own = {per_minute: found[per_minute, "this version"] for per_minute in (10, 50, 120)}
    for per_minute, name, least in ((50, "96d5962", 5), (50, "every 10 s", 5), (10, "96d5962", 10)):
        ratio = median(found[per_minute, name].lags) / median(own[per_minute].lags)
        print(f"median lag at {per_minute} a minute: {ratio:.1f} times shorter than {name} (target: {least})")
    for per_minute, figures in own.items():
        ratio = found[per_minute, "96d5962"].calls_per_build / figures.calls_per_build
        print(f"calls for a build at {per_minute} a minute: {ratio:.1f} times fewer than 96d5962 (target: 4)")
    worst = max(figures.throttled_share for _, _, name, figures in rows if name.startswith("this"))
    print(f"429s after the first minute: at most {worst:.1%} of the calls (target: 2%)")


# -- 100,000 builds --------------------------------------------------------------------------------------------------

CROWD, CROWD_JOBS, CROWD_PER_MINUTE = 100_000, 2_000, 3_000


def measure_crowd(builds: int) -> None:
    """Print memory and lags of many open builds in many routes."""
    world = make_world(1, CROWD_PER_MINUTE, 0.0, builds=builds, jobs=CROWD_JOBS)
    policy = Adaptive(world, CROWD_PER_MINUTE)
    tracemalloc.start()
    empty = tracemalloc.get_traced_memory()[0]
    for build in world.builds:
        policy.open[build.job][build.id] = build
    held = tracemalloc.get_traced_memory()[0]
    for job_id in policy.open:
        policy.put(job_id, 0)
    book = tracemalloc.get_traced_memory()[0] - held
    tracemalloc.stop()
    print(f"{builds:,} open builds of {CROWD_JOBS:,} jobs: the book holds {book / 2**20:.1f} MiB", end="")
    print(f" (the simulated builds: {(held - empty) / 2**20:.1f} MiB)")
    world = make_world(1, CROWD_PER_MINUTE, 0.0, builds=builds, jobs=CROWD_JOBS)
    figures = measure(world, Adaptive(world, CROWD_PER_MINUTE))
    by_route: defaultdict[str, list[float]] = defaultdict(list)
    for build in world.builds:
        by_route[build.project].append(((build.found or 0) + GRACE - build.ended) / SECOND)
    medians = sorted(median(lags) for lags in by_route.values())
    print(f"lag: median {median(figures.lags):.1f} s, p95 {figures.p95:.1f} s, max {max(figures.lags):.0f} s")
    print(f"median lags of {len(medians)} routes: {medians[0]:.1f} s to {medians[-1]:.1f} s")
    print(
        f"calls: {figures.calls_per_build:.2f} a build, {figures.throttled_share:.1%} throttled after the first minute"
    )


# -- plot ------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 360, 60, 40, 60
COLORS = {"this version": "#0969da", "this, unknown jobs": "#54aeff", "96d5962": "#cf222e", "every 10 s": "#9a6700"}
TICKS = (10, 30, 60, 300, 900, 3600)


def plot(rows: list[tuple[int, float, str, Figures]], per_minute: int) -> str:
    """Return an SVG of the lags without hooks at one limit: the share of builds finalized within a time."""
    span = math.log(TICKS[-1] / TICKS[0])

    def x(seconds: float) -> float:
        share = math.log(min(max(seconds, TICKS[0]), TICKS[-1]) / TICKS[0]) / span
        return LEFT + share * (WIDTH - LEFT - 20)

    def y(share: float) -> float:
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"',
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20">Share of builds finalized after their end, at {per_minute} calls a minute</text>',
    ]
    for tick in TICKS:
        label = f"{tick} s" if tick < 60 else f"{tick // 60} min"
        parts.append(f'<path d="M{x(tick):.0f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x(tick):.0f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    for share in (0, 0.5, 1):
        parts.append(f'<path d="M{LEFT} {y(share):.0f}H{WIDTH - 20}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(share) + 4:.0f}" text-anchor="end">{share:.0%}</text>')
    for number, (name, color) in enumerate(COLORS.items()):
        lags = sorted(
            next(f for limit, hooks, policy, f in rows if (limit, hooks, policy) == (per_minute, 0, name)).lags
        )
        every = max(1, len(lags) // 100)
        points = " ".join(f"{x(lags[n]):.0f},{y((n + 1) / len(lags)):.0f}" for n in range(0, len(lags), every))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        at = LEFT + number * 160
        parts.append(f'<path d="M{at} {HEIGHT - 20}h20" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{at + 26}" y="{HEIGHT - 16}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--crowd", type=int, default=CROWD, help="open builds of the last part; 0 leaves it out")
    parser.add_argument("--plots", type=Path, help="folder to write polling-10.svg and polling-50.svg to")
    options = parser.parse_args()
    rows = list(run_all(options.seeds))
    print_table(rows)
    print_targets(rows)
    if options.plots:
        for per_minute in (10, 50):
            (options.plots / f"polling-{per_minute}.svg").write_text(plot(rows, per_minute), encoding="utf-8")
    if options.crowd:
        measure_crowd(options.crowd)


if __name__ == "__main__":
    main()
