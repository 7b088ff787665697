"""Plays a run of chance from its plan to its verdicts."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp

from bridge.sandbox.runs import SandboxRun, State
from tests.chaos.evidence import PAGES, Evidence, Row, health, page, read_spool, read_tables
from tests.chaos.greedy import GreedyCaller
from tests.chaos.honest import Books, HonestCi
from tests.chaos.hostile import Pests
from tests.chaos.invariants import Verdict, judge
from tests.chaos.machine import Machine
from tests.chaos.mischief import Mischief
from tests.chaos.plan import GreedyAct, Mishap, Options, Pest, Plan, Play, draw
from tests.chaos.stage import Stage, set_stage
from tests.support.canaries import ADMIN
from tests.support.corpus import Corpus
from tests.support.outcome import api_builds
from tests.support.reckoning import counting_runs

DRAIN_SECONDS = 240.0  # for everything to come to its end once all is well, on a machine without other work
LONGEST_DRAIN_SECONDS = 480.0  # however busy the machine is: less than the test's timeout
LOOK_SECONDS = 0.5
THROTTLED = 429
LOOKS = 20
PAGES_EVERY_SECONDS = 3.0
ENDS = "every build comes to its end once all is well"
BEATS_SECONDS = 2.5  # after a start every loop has turned by then

Timed = TypeVar("Timed", Play, Mishap, Pest, GreedyAct)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run did and what came of it."""

    options: Options
    builds: int
    books: Books
    mischief: Counter[str]
    answered: int  # calls by CodeArts
    throttled: int  # of the others
    played_seconds: float  # until the last caller had had its answer
    drained_seconds: float
    machine: Machine
    verdicts: list[Verdict]

    @property
    def holds(self) -> bool:
        return not any(verdict.broken for verdict in self.verdicts)

    def lines(self) -> list[str]:
        """Return what people are told of it."""
        options, counts, busy = self.options, self.books.counts, self.machine
        place = f"{'PostgreSQL' if options.postgres else 'SQLite'}, {'S3' if options.s3 else 'disk'}"
        faults = ", ".join(f"{what} {count}" for what, count in sorted(self.mischief.items()))
        return [
            f"seed {options.seed}: {options.seconds:g} s, {place}, {options.replicas} gateway(s)",
            f"played: {self.builds} builds, {len(self.books.sent)} reports; "
            + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())),
            f"faults: {faults}",
            f"CodeArts: {self.answered} calls answered, {self.throttled} throttled",
            f"played for {self.played_seconds:.1f} s, drained in {self.drained_seconds:.1f} s more",
            f"other work kept the machine busy for {busy.busy_seconds:.0f} s; at most {busy.slowest:.1f} times as slow",
            *(line for verdict in self.verdicts for line in _lines(verdict)),
        ]


SHOWN_COMPLAINTS = 10


def _lines(verdict: Verdict) -> list[str]:
    head = f"{'BROKEN' if verdict.broken else 'holds'}: {verdict.name} [{verdict.note}]"
    more = len(verdict.broken) - SHOWN_COMPLAINTS
    rest = [f"    and {more} more"] if more > 0 else []
    return [head, *(f"    {sentence}" for sentence in verdict.broken[:SHOWN_COMPLAINTS]), *rest]


async def play(options: Options, corpus: Corpus, folder: Path) -> Outcome:
    """Play one run below `folder`, and judge it."""
    plan = draw(options, corpus)
    async with set_stage(options, plan, folder) as stage:
        mischief, books, pests, greedy = Mischief(stage), Books(), Pests(stage), GreedyCaller(stage)
        began = time.monotonic()
        texts = await _act(stage, plan, mischief, books, pests, greedy)
        played_seconds = time.monotonic() - began
        drain = Drain(stage, plan.pace_seconds)
        left = await drain.left_of(besides=stage.bad.key)
        beside_bad = await _builds(stage)
        stage.bad.healed = True
        left = await drain.left_of() or left
        drained_seconds = drain.seconds
        reasons = await _reasons(stage, left)
        evidence = await _look(stage, books, pests, greedy, beside_bad, texts)
        calls = stage.world.calls.at("codearts.*")
        ill = {f"bad build: {plan.bad.place} {plan.bad.what}": stage.bad.given}
        return Outcome(
            options=options,
            builds=len(plan.plays) + len(plan.greedy_plays) + 1,
            books=books,
            mischief=mischief.done + pests.slow + greedy.counts + Counter(ill),
            answered=sum(call.status != THROTTLED for call in calls),
            throttled=sum(call.status == THROTTLED for call in calls),
            played_seconds=played_seconds,
            drained_seconds=drained_seconds,
            machine=stage.machine,
            verdicts=[Verdict(name=ENDS, note=f"{len(reasons)} did not", broken=tuple(reasons)), *judge(evidence)],
        )


async def _act(  # all who take part
    stage: Stage, plan: Plan, mischief: Mischief, books: Books, pests: Pests, greedy: GreedyCaller
) -> list[str]:
    """Play the plan; return the pages that were read meanwhile."""
    texts: list[str] = []
    began = time.monotonic()
    async with HonestCi(stage, books) as ci, asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(_read_pages(stage, texts))
        async with asyncio.TaskGroup() as acts:
            acts.create_task(_in_time(plan.plays, ci.play, began))
            acts.create_task(_in_time(plan.mishaps, mischief.commit, began))
            acts.create_task(_in_time(plan.pests, pests.come, began))
            acts.create_task(_in_time([plan.bad.play], ci.play, began))
            acts.create_task(_in_time(plan.greedy_plays, ci.play, began))
            acts.create_task(_in_time(plan.greedy_acts, greedy.act, began))
            await asyncio.sleep(stage.options.seconds)
            await _calm(stage)
        looking.cancel()
    return texts


async def _calm(stage: Stage) -> None:
    """Return once every gateway is ready and none has a death before it."""
    await asyncio.gather(*(keeper.calm() for keeper in stage.keepers))


async def _in_time(planned: Iterable[Timed], act: Callable[[Timed], Awaitable[None]], began: float) -> None:
    """Begin each act at its time, whether the ones before have ended or not; return when all have."""
    async with asyncio.TaskGroup() as acts:
        for each in planned:
            await asyncio.sleep(max(0.0, began + each.at_seconds - time.monotonic()))
            acts.create_task(_awaited(act(each)))


async def _awaited(act: Awaitable[None]) -> None:
    await act


async def _read_pages(stage: Stage, texts: list[str]) -> None:
    while True:
        await asyncio.sleep(PAGES_EVERY_SECONDS)
        for gateway in stage.gateways:
            for path in PAGES:
                with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):  # there may be none now
                    texts.append((await page(gateway, path))[1])


class Drain:
    """The wait for every build to come to its end, once all is well; CodeArts' limits make it longer."""

    def __init__(self, stage: Stage, pace_seconds: float) -> None:
        self._stage = stage
        self._pace_seconds = pace_seconds
        self._began, self._fair_before = time.monotonic(), stage.machine.fair_seconds

    @property
    def seconds(self) -> float:
        """Return how long it has lasted."""
        return time.monotonic() - self._began

    async def left_of(self, besides: str = "") -> dict[str, Row]:
        """Return the builds but one that have not come to their end by the end of the wait, if there are any."""
        while (left := await _unended(self._stage, besides)) and not self._is_over():
            await asyncio.sleep(LOOK_SECONDS)
        return left

    def _is_over(self) -> bool:
        fair_seconds = self._stage.machine.fair_seconds - self._fair_before
        spent = max(fair_seconds / DRAIN_SECONDS, self.seconds / LONGEST_DRAIN_SECONDS)
        return spent >= 1 and self.seconds >= DRAIN_SECONDS + self._pace_seconds


async def _builds(stage: Stage) -> dict[str, Row]:
    """Return the builds as the API shows them; ask again if it needs too long on a busy machine."""
    for _ in range(LOOKS):
        with suppress(AssertionError, TimeoutError, aiohttp.ClientError):
            return await api_builds(stage.gateways[0], token=ADMIN)
        await asyncio.sleep(LOOK_SECONDS)
    return await api_builds(stage.gateways[0], token=ADMIN)


async def _unended(stage: Stage, besides: str) -> dict[str, Row]:
    shown = await _builds(stage)
    return {key: build for key, build in shown.items() if key != besides and not _has_ended(stage, build)}


def _has_ended(stage: Stage, build: Row) -> bool:
    runs = counting_runs(stage.world, f"codearts-{build['job_id']}-{build['build_no']}")
    return (
        build["state"] in ("finalized", "no_run")
        and all(delivery["state"] != "pending" for report in build["reports"] for delivery in report["deliveries"])
        and all(_is_over(run, build, stage.world.micros()) for run in runs)
    )


async def _reasons(stage: Stage, left: dict[str, Row]) -> list[str]:
    """Return what the gateway answers to why these builds have not come to their end."""
    reasons = []
    for key, build in left.items():
        query = f"job_id={build['job_id']}&build_no={build['build_no']}"
        _, answer = await page(stage.gateways[0], f"/api/v1/why?{query}")
        reasons.append(f"{key} is {build['state']}: {answer.rpartition(chr(10))[2]}")
    return reasons


def _is_over(run: SandboxRun, build: Row, at: int) -> bool:
    """Return whether a run has left pending, or never will: one that has a report is still to be replaced."""
    if run.status_at(at) in (State.PROCESSED, State.FAILED):
        return True
    return bool(build["stuck_reason"]) and all(upload.put_at is None for upload in run.uploads)


async def _look(  # all who took part
    stage: Stage, books: Books, pests: Pests, greedy: GreedyCaller, beside_bad: dict[str, Row], texts: list[str]
) -> Evidence:
    """Restart everything once more, so that the next start has cleared up, and read all that is left."""
    for keeper in stage.keepers:
        keeper.terminate()
    await asyncio.sleep(LOOK_SECONDS)
    await _calm(stage)
    await asyncio.sleep(BEATS_SECONDS)
    gateways = stage.gateways
    shown = await _builds(stage)
    healths = [await health(gateway) for gateway in gateways]
    pages = [(await page(gateway, path))[1] for gateway in gateways for path in PAGES]
    codes = [await keeper.end() for keeper in stage.keepers]
    tables = await read_tables(stage)
    blobs, leftovers, content = await asyncio.to_thread(read_spool, stage)
    outputs = [text for gateway in gateways for text in (gateway.stdout(), gateway.stderr())]
    return Evidence(
        stage=stage,
        books=books,
        pests=pests,
        greedy=greedy,
        beside_bad=beside_bad,
        shown=shown,
        tables=tables,
        blobs=blobs,
        leftovers=leftovers,
        health=healths,
        ends=[end for keeper in stage.keepers for end in keeper.ends],
        codes=codes,
        texts=[*texts, *pages, *pests.said, *greedy.said, *outputs, str(tables), content],
    )
