"""Gateways of one ledger whose settings differ: each harms only itself, and what it cannot do is left to the others."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from structlog.testing import capture_logs

from bridge.domain.circuit_breaker import CODEARTS, route_breaker
from bridge.domain.instants import SECOND
from bridge.domain.outcomes import CredentialsRejected
from bridge.store.blobs.disk import DiskSpool
from bridge.store.circuit_breakers import all_breakers
from bridge.store.schema import builds
from bridge.worker import blob_reader
from bridge.worker.own_faults import OwnFaults
from tests.support.builders import MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.labels import label
from tests.support.ledger import report
from tests.support.worker_play import JOBS, LARGE, ROUTES, Outside, Play, StorageThatReads, in_spool

STALE = "token-stale"
ROUTE = "shop"
NUMBERS = range(1, 5)
LONG_SECONDS = 200  # of which nothing is expected in each single second
RUNS = len(JOBS) * len(NUMBERS)

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def outside(clock):
    outside = Outside(clock)
    outside.unknown_token = STALE
    return outside


@pytest.fixture
async def replicas(backend, clock, outside, tmp_path):
    """Two gateways before the same upstreams. The second has a stale token for one route."""
    async with backend.fresh(clock) as database:
        good, stale = (Play(database, clock, tmp_path, outside=outside, retry_max_delay=10 * MINUTE) for _ in range(2))
        for play in (good, stale):
            play.config = replace(play.config, own_faults=OwnFaults(shared=True))
        give_token(stale, STALE)
        yield good, stale


def give_token(play, token):
    """Reload a gateway with another token for ROUTE."""
    tokens = {**play.config.clients.project_tokens, ROUTE: SecretStr(token)}
    clients = replace(play.config.clients, project_tokens=tokens)
    uploader = play.config.executor._uploader
    uploader._clients = play.config.executor._finalizer._clients = clients
    play.config = replace(play.config, clients=clients, newest_breakers={})


def remove_route(play):
    """Reload a gateway without ROUTE."""
    policy = play.config.policy
    left = tuple(route for route in policy.routes if route.name != ROUTE)
    play.config = replace(play.config, policy=replace(policy, routes=left), newest_breakers={})


def report_of(number):
    return report(f"junit-{number}.xml")


async def arrive(play):
    """Let builds of every job arrive that have ended."""
    for number in NUMBERS:
        for job_id in JOBS:
            await play.ledger.accept(report_of(number), job_id=job_id, build_no=number, complete=True)


async def pass_time(*plays, seconds):
    """Let all gateways work side by side; return the log lines."""
    clock = plays[0].clock
    end = clock.now() + seconds * SECOND
    with capture_logs() as lines:
        while clock.now() < end:
            for play in plays:
                await play.turn()
            clock.set(clock.now() + (SECOND if seconds < LONG_SECONDS else 5 * SECOND))
    return lines


def events(lines, name):
    return [line for line in lines if line["event"] == name and line.get("upstream") == route_breaker(ROUTE)]


async def is_open(play):
    return (await play.config.database.read(all_breakers)).is_open(route_breaker(ROUTE))


async def unfinished(play):
    return [row.key for row in await play.ledger.rows(select(builds.c.key).where(builds.c.state != "finalized"))]


async def test_a_stale_token_delays_no_build_of_its_route(replicas, outside):
    good, stale = replicas
    await arrive(good)
    lines = await pass_time(stale, good, seconds=60)
    assert await unfinished(good) == []
    assert len(outside.registered) == RUNS
    assert len(events(lines, "breaker_opened")) <= 1  # before any token was known to work
    assert not await is_open(good)
    assert stale.visits <= 2 * RUNS  # no build goes back and forth


async def test_once_the_other_token_was_seen_to_work_the_breaker_never_opens(replicas):
    good, stale = replicas
    await arrive(good)
    await pass_time(good, seconds=60)
    await good.ledger.accept(report_of(99), job_id="b" * 32, build_no=99, complete=True)
    lines = await pass_time(stale, good, seconds=60)
    assert await unfinished(good) == []
    lines += await pass_time(stale, good, seconds=1200)  # nothing arrives, and the stale one goes on to probe
    assert events(lines, "breaker_opened") == []
    assert [line["upstream"] for line in lines if line["event"] == "credential_rejected"] == [route_breaker(ROUTE)]
    own = stale.config.own_faults.breakers(stale.config.clients.credential_digests)
    assert [breaker.name for breaker in own] == [route_breaker(ROUTE)]
    assert 'this replica\'s project_token of route "shop"' in own[0].reason
    assert STALE not in own[0].reason
    assert good.config.own_faults.breakers(good.config.clients.credential_digests) == []


async def test_a_token_that_is_corrected_serves_its_route_again(replicas):
    good, stale = replicas
    await arrive(good)
    await pass_time(good, stale, seconds=60)
    assert ROUTE in stale.config.unclaimed_routes()
    give_token(stale, "token-shop")
    assert stale.config.unclaimed_routes() == set()
    await stale.ledger.accept(report_of(99), job_id="b" * 32, build_no=99, complete=True)
    await pass_time(stale, seconds=60)
    assert await unfinished(stale) == []


async def test_a_project_that_comes_back_is_seen_without_a_reload(replicas, outside):
    good, stale = replicas
    await arrive(good)
    await pass_time(good, stale, seconds=60)
    outside.unknown_token = ""
    await pass_time(stale, seconds=120)
    assert stale.config.own_faults.breakers(stale.config.clients.credential_digests) == []
    assert stale.config.unclaimed_routes() == set()


async def test_if_only_the_stale_replica_is_left_the_breaker_opens_and_builds_are_blocked(replicas):
    good, stale = replicas
    await arrive(good)
    await pass_time(good, stale, seconds=60)
    await stale.ledger.accept(report_of(99), job_id="b" * 32, build_no=99, complete=True)
    await pass_time(stale, seconds=240)
    assert await is_open(stale)
    blocked = await stale.ledger.rows(select(builds.c.blocked_reason).where(builds.c.blocked_reason.is_not(None)))
    assert [row.blocked_reason for row in blocked] == [
        'Route "shop": TestNod responded: Project not found. Fix its project_token. Delivery resumes automatically.'
    ]
    await pass_time(stale, good, seconds=30)  # the other one is back
    assert await unfinished(good) == []
    assert not await is_open(good)


async def test_one_replica_alone_opens_the_breaker_at_once_and_survives_a_restart(replicas):
    _, stale = replicas
    await arrive(stale)
    await pass_time(stale, seconds=3)
    assert await is_open(stale)
    await pass_time(stale, seconds=900)
    assert await is_open(stale)
    assert len(await unfinished(stale)) == 2 * len(NUMBERS)
    give_token(stale, "token-shop")
    await pass_time(stale, seconds=30)
    assert await unfinished(stale) == []


async def test_a_route_that_one_replica_lacks_is_served_by_the_other(replicas, outside):
    good, lacking = replicas
    remove_route(lacking)
    await arrive(good)
    lines = await pass_time(lacking, good, seconds=60)
    assert await unfinished(good) == []
    assert len(outside.registered) == RUNS
    lines += await pass_time(lacking, good, seconds=900)
    assert len(events(lines, "breaker_opened")) <= 1
    assert lacking.visits <= 2 * RUNS


async def test_a_replica_that_assigns_jobs_to_other_routes_kills_and_delays_no_report(replicas):
    """As in a rolling reload that moves jobs: callers are bound to the routes that their jobs have at the other one."""
    good, moved = replicas
    swapped = {"api": "shop", "shop": "api"}
    routes = [replace(route, name=swapped[route.name]) for route in good.config.policy.routes]
    moved.config = replace(moved.config, policy=replace(good.config.policy, routes=tuple(routes)))
    for number in NUMBERS:
        for job_id, route in JOBS.items():
            bound = {"caller": route, "caller_routes": (route,), "complete": True}
            await good.ledger.accept(report_of(number), job_id=job_id, build_no=number, **bound)
    await pass_time(moved, good, seconds=40)

    assert await good.states() == ["delivered"] * RUNS
    assert await unfinished(good) == []
    assert {row.route for row in await good.ledger.rows(select(builds.c.route))} == set(ROUTES)


async def test_a_route_that_no_replica_has_any_more_is_shown(replicas):
    good, lacking = replicas
    await arrive(good)
    await pass_time(good, seconds=60)
    await good.ledger.accept(report_of(99), job_id="b" * 32, build_no=1, complete=True)
    for play in (good, lacking):
        remove_route(play)
    await pass_time(good, lacking, seconds=300)
    assert await is_open(good)
    reasons = await good.ledger.rows(select(builds.c.blocked_reason).where(builds.c.blocked_reason.is_not(None)))
    assert [row.blocked_reason for row in reasons] == [
        'Its route "shop" is no longer in the settings. Put it back. Delivery then resumes automatically.'
    ]


# -- CodeArts ------------------------------------------------------------------------------------------------------


class RejectsKey(Outside):
    """CodeArts as a gateway with a wrong key sees it."""

    async def build_info(self, _job_id, _build_no):
        return CredentialsRejected(message="APIGW.0301: Incorrect IAM authentication information.")

    async def record_info(self, job_id, build_no):
        return await self.build_info(job_id, build_no)


@pytest.fixture
async def keys(backend, clock, outside, tmp_path):
    """Two gateways, of which the second has a wrong key for CodeArts."""
    async with backend.fresh(clock) as database:
        good, wrong = (
            Play(database, clock, tmp_path, outside=outside, has_codearts=True, retry_max_delay=10 * MINUTE)
            for _ in range(2)
        )
        good.config = replace(good.config, own_faults=OwnFaults(shared=True))
        clients = replace(wrong.config.clients, codearts_credentials=SecretStr("wrong"))
        wrong.config = replace(wrong.config, own_faults=OwnFaults(shared=True), clients=clients)
        wrong.config.executor._build_status._codearts = RejectsKey(clock)
        yield good, wrong


async def test_a_wrong_key_for_codearts_delays_no_poll_of_another_replica(keys, outside):
    good, wrong = keys
    outside.running = True
    for number in NUMBERS:
        await good.arrive(number)
    await pass_time(good, seconds=60)
    lines = await pass_time(wrong, good, seconds=60)
    outside.running = False
    lines += await pass_time(wrong, good, seconds=150)
    assert await unfinished(good) == []
    opened = [line for line in lines if line["event"] == "breaker_opened" and line["upstream"] == CODEARTS]
    assert len(opened) <= 1
    [own] = wrong.config.own_faults.breakers(wrong.config.clients.credential_digests)
    assert "this replica's credentials at CodeArts" in own.reason


async def test_one_replica_alone_with_a_wrong_key_shows_it(keys):
    _, wrong = keys
    await wrong.arrive(1)
    await pass_time(wrong, seconds=60)
    breakers = await wrong.config.database.read(all_breakers)
    assert breakers.known[CODEARTS].reason.startswith("CodeArts rejects the bridge's credentials: APIGW.0301")
    assert breakers.is_open(CODEARTS)


# -- the spool -------------------------------------------------------------------------------------------------------


class SpoolOutOfReach(DiskSpool):
    """A spool that one gateway cannot reach: its reads hang, until it is `reached`."""

    reached = False
    reads = 0

    async def read(self, key):
        self.reads += 1
        if not self.reached:
            await asyncio.Event().wait()
        async with aclosing(super().read(key)) as pieces:
            async for piece in pieces:
                yield piece

    async def fault(self):
        return None if self.reached else "The spool does not respond."


@pytest.fixture
async def spools(backend, clock, tmp_path, monkeypatch):
    """Two gateways, of which the second cannot reach the spool."""
    monkeypatch.setattr(blob_reader, "PIECE_SECONDS", 0.05)
    outside = StorageThatReads(clock)
    async with backend.fresh(clock) as database:
        sound, cut_off = (
            Play(database, clock, tmp_path, outside=outside, retry_max_delay=10 * MINUTE) for _ in range(2)
        )
        for play in (sound, cut_off):
            play.config = replace(play.config, own_faults=OwnFaults(shared=True))
        spool = SpoolOutOfReach(tmp_path)
        uploader = cut_off.config.executor._uploader
        uploader._spool = uploader._reader._spool = spool
        yield sound, cut_off, spool


async def arrive_large(play, folder):
    """Let builds of every job arrive that have ended, each with a report in the spool."""
    for number in NUMBERS:
        for job_id in JOBS:
            await arrive_one(play, folder, job_id, number)


async def arrive_one(play, folder, job_id, number):
    writer = await DiskSpool(folder).create()
    await writer.write(LARGE)
    key = await writer.commit(label(LARGE))
    await play.ledger.accept(in_spool(key), job_id=job_id, build_no=number, complete=True)


async def test_a_replica_that_cannot_read_the_spool_leaves_large_reports_to_the_other(spools, tmp_path):
    sound, cut_off, spool = spools
    await arrive_large(sound, tmp_path)
    lines = await pass_time(cut_off, sound, seconds=60)
    assert await unfinished(sound) == []
    assert [line for line in lines if line["event"] == "breaker_opened"] == []
    assert spool.reads <= 2  # the others do not wait for it
    assert len(sound.outside.registered) == RUNS


async def test_reports_that_arrive_while_the_spool_cannot_be_read_here_are_sent_by_the_other(spools, tmp_path):
    sound, cut_off, spool = spools
    await arrive_large(sound, tmp_path)
    await pass_time(cut_off, sound, seconds=60)
    reads = spool.reads
    await arrive_one(sound, tmp_path, "c" * 32, 99)
    await pass_time(cut_off, sound, seconds=30)
    assert await unfinished(sound) == []
    assert spool.reads == reads


async def test_one_replica_alone_reads_the_spool_again_when_it_responds(spools, tmp_path):
    _, cut_off, spool = spools
    await arrive_large(cut_off, tmp_path)
    await pass_time(cut_off, seconds=60)
    assert len(await unfinished(cut_off)) == RUNS
    spool.reached = True
    await pass_time(cut_off, seconds=180)
    assert await unfinished(cut_off) == []


def test_every_route_has_a_digest_that_holds_no_token(replicas):
    good, stale = replicas
    digests = [play.config.clients.credential_digests for play in (good, stale)]
    assert set(digests[0]) == {*map(route_breaker, ROUTES), CODEARTS}
    assert [name for name in digests[0] if digests[0][name] != digests[1][name]] == [route_breaker(ROUTE)]
    assert not any("token" in digest for digest in digests[0].values())
