"""Compare the time of ledger operations with a million builds and with a thousand, on both engines.

Always exits with 0. README.md explains the figures.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import asyncpg
from intake import FOLDER, heading
from million import JOBS, UNFINISHED, fill, job_id, small_upload
from plans import scans_of
from sqlalchemy import Connection, text
from surroundings import surroundings

from bridge.clock import SystemClock
from bridge.demo.postgres import PostgresServer
from bridge.domain.build import BuildState
from bridge.domain.request_rate import Api
from bridge.store.engine.base import Database, Item, LedgerFunction, Result, Transaction, run_each
from bridge.store.engine.postgres import PostgresDatabase
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.leases import Claim, PollRequest, Release, claim, due_routes, read_claimed, release, request_poll
from bridge.store.ledger import open_ledger
from bridge.store.queries import BuildsQuery, counts, find_build, find_why, list_builds, one_build
from bridge.store.rejections import RejectionsQuery, list_rejections
from bridge.store.request_rates import RateUse, use_rates
from bridge.store.retention import (
    DeliveredBodies,
    delete_old_rejections,
    known_blobs,
    routes_in_use,
    unlink_dead,
    unlink_delivered,
)
from bridge.store.uploads import accept
from bridge.telemetry.logs import set_up

SMALL, LARGE = 1_000, 1_000_000
ROUNDS = 60
WARM_UP_ROUNDS = 5  # for plans and pages
LIMIT = 1.3
SLOT = RateUse(account="bench", api=Api.BUILD_INFO, highest=60_000.0, takes=1)
LEASE_US = 60_000_000
DELIVERED = DeliveredBodies(before=0, replacements=True)
ENGINES = ["sqlite", "postgresql"]
ROUTES = ("", "shop", "pay", "docs")


@dataclass(slots=True)
class Ledger:
    """A filled ledger, and the numbers of the next builds."""

    database: Database
    builds: int
    chance: Random = field(default_factory=lambda: Random(1))
    numbers: Any = field(default_factory=lambda: count(10_000_000))

    def finished_build(self) -> int:
        """Return the number of a random finished build."""
        return self.chance.randint(2, self.builds - UNFINISHED)


async def _accept_new(ledger: Ledger) -> None:
    await ledger.database.write(accept, small_upload(7, next(ledger.numbers)))


async def _accept_late(ledger: Ledger) -> None:
    number = ledger.finished_build()
    await ledger.database.write(accept, small_upload(number % JOBS, number, digest=f"{next(ledger.numbers):064x}"))


async def _accept_known(ledger: Ledger) -> None:
    await ledger.database.write(accept, small_upload(1, 1))


async def _claim(ledger: Ledger) -> None:
    leased = await ledger.database.write(claim, Claim(route="shop", owner="bench", lease_us=LEASE_US))
    if leased is None:
        raise LookupError("no build of this route is due")
    claimed = await ledger.database.read(read_claimed, leased)
    end = Release(
        build_id=leased.row.id,
        fencing_token=leased.row.fencing_token,
        report_seq=claimed.build.report_seq,
        due_at=claimed.due_at,
        until=leased.now,
        waiting_on=None,
        blocked_reason=None,
    )
    await ledger.database.write(release, end)


def _page(**wanted: Any) -> Callable[[Ledger], Awaitable[object]]:
    return lambda ledger: ledger.database.read(list_builds, BuildsQuery(**wanted))


OPERATIONS: dict[str, Callable[[Ledger], Awaitable[object]]] = {
    "accept: a new build": _accept_new,
    "accept: a late report": _accept_late,
    "accept: a duplicate": _accept_known,
    "claim, read, release": _claim,
    "routes with due builds": lambda ledger: ledger.database.read(due_routes, ROUTES, ledger.database.now()),
    "next slot of the polling rate": lambda ledger: ledger.database.write(use_rates, SLOT),
    "hook: a build": lambda ledger: ledger.database.write(request_poll, PollRequest(job_id=job_id(5), build_no=5)),
    "hook: a job": lambda ledger: ledger.database.write(request_poll, PollRequest(job_id=job_id(5))),
    "page: the newest": _page(),
    "page: from the middle": lambda ledger: ledger.database.read(
        list_builds, BuildsQuery(before_id=ledger.builds // 2)
    ),
    "page: of a job": _page(job_id=job_id(3)),
    "page: one build": _page(job_id=job_id(5), build_no=5),
    "page: of a route": _page(route="shop"),
    "page: open": _page(state=BuildState.OPEN),
    "page: no_run, of which there are none": _page(state=BuildState.NO_RUN),
    "page: open, of a route": _page(state=BuildState.OPEN, route="shop"),
    "page: no_run, of a route": _page(state=BuildState.NO_RUN, route="shop"),
    "page: no_run, of a job": _page(state=BuildState.NO_RUN, job_id=job_id(3)),
    "page: of a job and a route with none": _page(route="none", job_id=job_id(3)),
    "page: rejections": lambda ledger: ledger.database.read(list_rejections, RejectionsQuery()),
    "page: rejections of a job": lambda ledger: ledger.database.read(list_rejections, RejectionsQuery(job_id="f" * 32)),
    "page: rejections of a route with none": lambda ledger: ledger.database.read(
        list_rejections, RejectionsQuery(route="none")
    ),
    "one build by its id": lambda ledger: ledger.database.read(one_build, ledger.finished_build()),
    "status of a build": lambda ledger: ledger.database.read(find_build, job_id(5), 5),
    "why": lambda ledger: ledger.database.read(find_why, job_id(5), 5),
    "counts of the metrics": lambda ledger: ledger.database.read(counts),
    "routes in use": lambda ledger: ledger.database.read(routes_in_use),
    "cleanup: dead": lambda ledger: ledger.database.write(unlink_dead, 0),
    "cleanup: delivered": lambda ledger: ledger.database.write(unlink_delivered, DELIVERED),
    "cleanup: rejections": lambda ledger: ledger.database.write(delete_old_rejections, 0),
    "cleanup: blobs": lambda ledger: ledger.database.read(known_blobs, ["2026/01/01/00/a"]),
}


@asynccontextmanager
async def _filled(url: str, builds: int) -> AsyncIterator[Ledger]:
    """Create a ledger, open it as a gateway does, and fill it."""
    began = time.monotonic()
    async with open_ledger(url, SystemClock()) as database:
        await _run(database, lambda connection: fill(connection, database.now(), builds))
        await _settle(database)
        print(f"{url.partition(':')[0]}: {builds:,} builds written in {time.monotonic() - began:.0f} s")
        yield Ledger(database, builds)


async def _run(database: Database, work: Callable[[Any], Any]) -> Any:
    if isinstance(database, PostgresDatabase):
        async with database.writing.begin() as connection:
            return await connection.run_sync(work)
    if isinstance(database, SqliteDatabase):
        with database.writing.begin() as connection:
            return work(connection)
    raise TypeError(database)


async def _settle(database: Database) -> None:
    """Vacuum and checkpoint PostgreSQL, which autovacuum does within minutes; truncate SQLite's log."""
    if isinstance(database, PostgresDatabase):
        alone = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        async with alone.connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))
            await connection.execute(text("CHECKPOINT"))
    elif isinstance(database, SqliteDatabase):
        database.writing.raw_connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _measure(ledgers: list[Ledger], name: str, rounds: int) -> None:
    seconds: list[list[float]] = [[] for _ in ledgers]
    for number in range(rounds + WARM_UP_ROUNDS):
        for ledger, own in zip(ledgers, seconds, strict=True):
            began = time.perf_counter()
            await OPERATIONS[name](ledger)
            if number >= WARM_UP_ROUNDS:
                own.append(time.perf_counter() - began)
    small, large = (quantiles(own)[0] * 1e3 for own in seconds)  # other programs only add time
    scans = await _scans(ledgers[1], name)
    over = "" if large <= LIMIT * small else "  OVER THE LIMIT"
    print(f"  {name:40} {small:8.2f} ms {large:8.2f} ms {large / small:6.2f}{over}", *scans, sep="\n      ")


class Explained:
    """A database that runs everything on one connection and records statements that scan a whole table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.found: list[str] = []

    def now(self) -> int:
        return self._database.now()

    async def transact(self, transaction: Transaction[Result]) -> Result:
        return await self.write(run_each, transaction)

    async def write(self, batch: LedgerFunction[Item, Result], item: Item, size: int = 0) -> Result:
        del size
        results: Sequence[Result] = await self.read(batch, self.now(), [item])
        return results[0]

    async def read(self, query: Callable[..., Any], *arguments: object) -> Any:
        def work(connection: Connection) -> Any:
            results: list[Any] = []
            self.found += scans_of(connection, lambda same: results.append(query(same, *arguments)))
            return results[0]

        return await _run(self._database, work)


async def _scans(ledger: Ledger, name: str) -> list[str]:
    """Return the statements of the operation that scan a whole table."""
    explained = Explained(ledger.database)
    await OPERATIONS[name](replace(ledger, database=explained))  # type: ignore[arg-type]  # has the methods in use
    return explained.found


async def _engine(urls: list[str], sizes: tuple[int, int], rounds: int, only: str) -> None:
    async with AsyncExitStack() as ends:
        ledgers = [await ends.enter_async_context(_filled(url, size)) for url, size in zip(urls, sizes, strict=True)]
        for name in OPERATIONS:
            if only in name:
                await _measure(ledgers, name, rounds)


async def bench(folder: Path, sizes: tuple[int, int], rounds: int, only: str, engines: list[str]) -> None:
    if ENGINES[0] in engines:
        heading(f"SQLite: {sizes[0]:,} builds, {sizes[1]:,} builds, ratio (limit {LIMIT})")
        await _engine([f"sqlite:///{folder}/{size}.db" for size in sizes], sizes, rounds, only)
    if ENGINES[1] in engines:
        heading(f"PostgreSQL: {sizes[0]:,} builds, {sizes[1]:,} builds, ratio (limit {LIMIT})")
        async with PostgresServer() as server:
            for size in sizes:
                await _create(server, f"b{size}")
            await _engine([server.url(f"b{size}") for size in sizes], sizes, rounds, only)


async def _create(server: PostgresServer, name: str) -> None:
    connection = await asyncpg.connect(server.url())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=SMALL, help="builds in the small ledger")
    parser.add_argument("--builds", type=int, default=LARGE)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="operations with this text in their name")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="default: both")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="parent of the folder of SQLite's ledgers")
    args = parser.parse_args()
    set_up(level="ERROR")
    with tempfile.TemporaryDirectory(prefix="scale-", dir=args.folder) as folder:
        print(*list(surroundings(Path(folder)))[:2], sep="\n")  # the other lines are about other servers
        sizes = (args.small, args.builds)
        asyncio.run(bench(Path(folder), sizes, args.rounds, args.only, args.engine or ENGINES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
