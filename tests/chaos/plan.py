"""What a run of chance will do, drawn from its seed before it begins: builds, faults and unwelcome callers, by time."""

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from math import inf
from random import Random

from bridge.sandbox.faults import CALL_NAMES
from tests.chaos.faults import (
    CLOCKS,
    FULL,
    ODD_ANSWERS,
    WAYS,
    WRONG_ANSWERS,
    DatabaseRestart,
    Death,
    Fault,
    Freeze,
    FullDisk,
    Kill,
    OddAnswers,
    ProjectMissing,
    Reload,
    SpoiltWay,
    StorageAway,
    Terminate,
    WrongAnswers,
    WrongClock,
    may_come_after,
)
from tests.faults.steps import STEPS
from tests.support.builds import Build, Upload, draw_builds, small_build
from tests.support.corpus import Corpus

BUILDS_A_SECOND = 1.5
JOBS = 6  # that all builds belong to, so that those of one job stand in line after an outage
LAST_BUILD = 0.85  # of the run: what comes later would only be played after its faults
REPEAT_SHARE = 0.3  # of the builds: CI sends an upload again that was taken
PATIENT_SHARE = 0.7  # of the callers: their curl knows --retry-all-errors
DEATHS_SHARE = 0.4  # of the processes that are started again: they die at a drawn step
DEATHS_STEPS = (1, 8)  # how often the step is taken before
PEST_SECONDS = (0.2, 1.5)  # between two unwelcome callers
FAULT_SECONDS = (0.4, 2.0)  # between the beginnings of two faults
LASTS_SECONDS = (0.5, 5.0)
FREEZE_SECONDS = (0.3, 5.0)  # some longer than a lease
CLOCK_SECONDS = (3.0, 9.0)  # a start with a wrong clock takes some of them
SLOW_SHARE = 0.3  # of the unwelcome callers
GREED_SECONDS = (2.0, 6.0)  # between two acts of the greedy caller
GREEDY_BUILD_SECONDS = 10.0  # between two builds of its own
COSTLY_UPLOADS, COSTLY_CASES = 4, 20_000  # of each of these builds, and of each file: a megabyte that takes a while
LIMITED_APIS = tuple(name for name in CALL_NAMES if name.startswith("codearts."))
CALL_LIMITS = (10, 20, 50, 120)  # calls of an API in a minute, as CodeArts' policies have them
CALLS_PER_BUILD = 4  # to one API, at most
BAD_BEGINS = 0.2  # of the run: the bad build is there for most of it
BAD_PLACES = ("testnod.register", "s3.put", "testnod.finalize", "codearts.build_info")
HOSTILE_JOB = "e" * 32  # that hostile uploads of the honest caller go to
GREEDY_JOB = "greedy" + "0" * 26
BAD_JOB = "bad" + "0" * 29


class Ending(StrEnum):
    """How the bridge learns that a build has ended."""

    TOLD = "told"  # build-info says so
    COMPLETE = "complete"  # its last upload says complete=true
    FORGOTTEN = "forgotten"  # CodeArts knows it no more


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a run is to be."""

    seed: int
    seconds: float
    postgres: bool = False
    s3: bool = False
    replicas: int = 1
    limits: bool = False  # CodeArts limits the calls of each API, as its throttling policies do


@dataclass(frozen=True, kw_only=True, slots=True)
class Play:
    """One build, from `at_seconds` of the run on."""

    at_seconds: float
    build: Build
    ending: Ending
    repeats: bool
    patient: bool
    pause_seconds: float  # between two uploads of a node
    greedy: bool = False  # it belongs to the greedy caller


@dataclass(frozen=True, kw_only=True, slots=True)
class BadBuild:
    """A build of which every call at one place is answered oddly, until all others have come to their end."""

    play: Play
    place: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Mishap:
    """One fault of the run: when, for how long, and which of the replicas it hits where it hits one."""

    at_seconds: float
    lasts_seconds: float
    fault: Fault
    replica: int


class Slow(StrEnum):
    """What a slow caller sends to."""

    UPLOAD = "an upload"
    PROXY = "a proxied call"
    LOGIN = "a login"
    ADMIN = "the admin listener"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pest:
    """One unwelcome caller; a slow one sends a byte now and then, or none any more, in its header or its body."""

    at_seconds: float
    slow: Slow | None
    stalls: bool
    in_body: bool
    number: int  # which of the hostile uploads


class Greed(StrEnum):
    """What a caller of another route does to a build that is none of its business."""

    FLOOD = "101 uploads to a foreign build"
    FOREIGN = "a report, an end and a look at a foreign build"
    MADE_UP = "made-up credentials"


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedyAct:
    """One act of the greedy caller, at a build of another route."""

    at_seconds: float
    what: Greed
    build: Build
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All of it, in the order of time; `deaths` has one entry for each process that is started again."""

    plays: tuple[Play, ...]
    mishaps: tuple[Mishap, ...]
    pests: tuple[Pest, ...]
    greedy_plays: tuple[Play, ...]
    greedy_acts: tuple[GreedyAct, ...]
    bad: BadBuild
    deaths: tuple[Death | None, ...]
    calls_per_minute: Mapping[str, int]  # that CodeArts answers, by call

    @property
    def pace_seconds(self) -> float:
        """Return how long the calls to CodeArts take at most, because of their limits."""
        builds = len(self.plays) + len(self.greedy_plays) + 1
        return 60 * builds * CALLS_PER_BUILD / min(self.calls_per_minute.values(), default=inf)


def draw(options: Options, corpus: Corpus) -> Plan:
    """Draw a run; each part from a chance of its own, so that a change of one leaves the others."""
    plays = tuple(_plays(_chance(options, "builds"), options, corpus))
    return Plan(
        plays=plays,
        mishaps=tuple(_mishaps(_chance(options, "faults"), options)),
        pests=tuple(_pests(_chance(options, "pests"), options)),
        greedy_plays=tuple(_greedy_plays(_chance(options, "greedy builds"), options)),
        greedy_acts=tuple(_greedy_acts(_chance(options, "greed"), options, plays)),
        bad=_bad(_chance(options, "bad"), options, corpus),
        deaths=tuple(_deaths(_chance(options, "deaths"), options)),
        calls_per_minute=_limits(_chance(options, "limits")) if options.limits else {},
    )


def _chance(options: Options, part: str) -> Random:
    return Random(f"{options.seed}/{part}")


def _limits(chance: Random) -> dict[str, int]:
    return {api: chance.choice(CALL_LIMITS) for api in LIMITED_APIS}


def _plays(chance: Random, options: Options, corpus: Corpus) -> Iterator[Play]:
    count = max(1, int(options.seconds * LAST_BUILD * BUILDS_A_SECOND))
    jobs = [f"{chance.getrandbits(128):032x}" for _ in range(JOBS)]
    moments = sorted(chance.uniform(0, options.seconds * LAST_BUILD) for _ in range(count))
    for at_seconds, build in zip(moments, draw_builds(chance, corpus, count), strict=True):
        yield Play(
            at_seconds=at_seconds,
            build=replace(build, job_id=chance.choice(jobs)),
            ending=chance.choices(list(Ending), weights=(7, 2, 1))[0],
            repeats=chance.random() < REPEAT_SHARE,
            patient=chance.random() < PATIENT_SHARE,
            pause_seconds=chance.uniform(0, 1),
        )


def _mishaps(chance: Random, options: Options) -> Iterator[Mishap]:
    kinds = {kind: weight for kind, weight in _KINDS.items() if _possible(kind, options)}
    at_seconds = chance.uniform(*FAULT_SECONDS)
    while at_seconds < options.seconds:
        fault = chance.choices(list(kinds), weights=list(kinds.values()))[0](chance)
        lasts = chance.uniform(*_SPANS.get(type(fault), LASTS_SECONDS))
        yield Mishap(
            at_seconds=at_seconds,
            lasts_seconds=min(lasts, options.seconds - at_seconds),
            fault=fault,
            replica=chance.randrange(options.replicas),
        )
        at_seconds += chance.uniform(*FAULT_SECONDS)


def _spoilt_way(chance: Random) -> Fault:
    how = chance.choice(list(WAYS))
    return SpoiltWay(upstream=chance.choice(("testnod", "s3", "codearts")), how=how, faults=WAYS[how])


def _wrong_answers(chance: Random) -> Fault:
    place = chance.choice(list(WRONG_ANSWERS))
    rate = chance.choice((0.2, 0.5, 1.0))
    return WrongAnswers(place=place, rate=rate, answer=chance.choice(WRONG_ANSWERS[place]))


def _odd_answers(chance: Random) -> Fault:
    place = chance.choice(list(ODD_ANSWERS))
    rate, what = chance.choice((0.2, 0.5, 1.0)), chance.choice(list(ODD_ANSWERS[place]))
    after = chance.random() < 0.3
    return OddAnswers(place=place, rate=rate, what=what, after=after and may_come_after(place, what))


def _wrong_clock(chance: Random) -> Fault:
    return WrongClock(ahead_seconds=chance.choice(CLOCKS), restarts=chance.random() < 0.5)


_SPANS: dict[type[Fault], tuple[float, float]] = {Freeze: FREEZE_SECONDS, WrongClock: CLOCK_SECONDS}


def _full_disk(chance: Random) -> Fault:
    return FullDisk(operations=chance.choice(FULL))


def _database_restart(chance: Random) -> Fault:
    return DatabaseRestart(how=chance.choice((signal.SIGINT, signal.SIGQUIT)))  # politely, or as a crash


def _storage_away(chance: Random) -> Fault:
    return StorageAway(hangs=chance.random() < 0.5)


_KINDS: dict[Callable[[Random], Fault], int] = {
    lambda _: Kill(): 2,
    lambda _: Terminate(): 1,
    lambda _: Freeze(): 2,
    lambda _: Reload(): 1,
    _spoilt_way: 8,
    _wrong_answers: 10,
    _odd_answers: 8,
    _wrong_clock: 2,
    lambda _: ProjectMissing(): 1,
    _full_disk: 3,
    _database_restart: 3,
    _storage_away: 2,
}
"""How likely each kind is beside the others."""


def _possible(kind: Callable[[Random], Fault], options: Options) -> bool:
    if kind is _full_disk:
        return not options.postgres and not options.s3  # the disk below ledger and spool
    return (options.postgres or kind is not _database_restart) and (options.s3 or kind is not _storage_away)


def _pests(chance: Random, options: Options) -> Iterator[Pest]:
    at_seconds = chance.uniform(*PEST_SECONDS)
    while at_seconds < options.seconds:
        yield Pest(
            at_seconds=at_seconds,
            slow=chance.choice(list(Slow)) if chance.random() < SLOW_SHARE else None,
            stalls=chance.random() < 0.5,
            in_body=chance.random() < 0.5,
            number=chance.randrange(1000),
        )
        at_seconds += chance.uniform(*PEST_SECONDS)


def _greedy_plays(chance: Random, options: Options) -> Iterator[Play]:
    last = options.seconds * LAST_BUILD
    for build_no in range(1, max(1, int(last / GREEDY_BUILD_SECONDS)) + 1):
        bodies = [_costly(f"{build_no}/{number}") for number in range(COSTLY_UPLOADS)]
        uploads = tuple(
            Upload(node_id=f"node-{number}", files=(("TEST-costly.xml", body),)) for number, body in enumerate(bodies)
        )
        build = Build(
            job_id=GREEDY_JOB,
            build_no=build_no,
            branch="main",
            commit="9" * 40,
            uploads=uploads,
            uploads_before_end=len(uploads),
            waits_for_finalize=False,
            pause_seconds=0,
        )
        yield Play(
            at_seconds=min(last, (build_no - chance.random()) * GREEDY_BUILD_SECONDS),
            build=build,
            ending=Ending.TOLD,
            repeats=False,
            patient=True,
            pause_seconds=0,
            greedy=True,
        )


def _costly(name: str) -> bytes:
    return f'<testsuite name="{name}">{_cases()}</testsuite>'.encode()


@cache
def _cases() -> str:
    return "".join(f'<testcase classname="c" name="case {number}"/>' for number in range(COSTLY_CASES))


def _greedy_acts(chance: Random, options: Options, plays: tuple[Play, ...]) -> Iterator[GreedyAct]:
    at_seconds = chance.uniform(*GREED_SECONDS)
    while at_seconds < options.seconds:
        begun = [play.build for play in plays if play.at_seconds <= at_seconds] or [plays[0].build]
        rejecting = small_build(1, job_id=HOSTILE_JOB)  # its rejections are not to be replaced
        yield GreedyAct(
            at_seconds=at_seconds,
            what=chance.choice(list(Greed)),
            build=chance.choice((chance.choice(begun), rejecting)),
            number=chance.randrange(1000),
        )
        at_seconds += chance.uniform(*GREED_SECONDS)


def _bad(chance: Random, options: Options, corpus: Corpus) -> BadBuild:
    place = chance.choice(BAD_PLACES)
    [build] = draw_builds(chance, corpus, 1)
    play = Play(
        at_seconds=chance.uniform(0, options.seconds * BAD_BEGINS),
        build=replace(build, job_id=BAD_JOB, uploads_before_end=len(build.uploads)),
        ending=Ending.TOLD,
        repeats=False,
        patient=True,
        pause_seconds=chance.uniform(0, 1),
    )
    return BadBuild(play=play, place=place, what=chance.choice(list(ODD_ANSWERS[place])))


def _deaths(chance: Random, options: Options) -> Iterator[Death | None]:
    for _ in range(int(options.seconds) * options.replicas):  # more than are ever started
        death = Death(step=chance.choice(list(STEPS)), when=chance.choice(("before", "after")),
                      count=chance.randint(*DEATHS_STEPS))  # fmt: skip
        yield death if chance.random() < DEATHS_SHARE else None
