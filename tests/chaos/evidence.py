"""What is left of a run when all is over: rows, bytes and pages, read from where they lie."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import aiohttp
import asyncpg

from bridge.store.blobs.base import ASIDE, is_key
from bridge.store.schema import metadata
from tests.chaos.greedy import GreedyCaller
from tests.chaos.honest import Books
from tests.chaos.hostile import Pests
from tests.chaos.keeper import End
from tests.chaos.stage import Stage
from tests.faults.gateway import FaultyGateway
from tests.support.canaries import ADMIN
from tests.support.labels import content_of
from tests.support.weed import BUCKET

PAGES = ("/", "/livez", "/readyz", "/metrics", "/api/v1/builds", "/api/v1/builds/1", "/api/v1/rejections")
PAGE_SECONDS = 20.0
PREFIX = "spool/"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """One blob of the spool; `digest` is of the report's own bytes."""

    name: str
    digest: str
    written_at: int  # microseconds UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that the invariants are held against."""

    stage: Stage
    books: Books
    pests: Pests
    greedy: GreedyCaller
    beside_bad: dict[str, Row]  # builds as the API showed them when all faults but the bad build had ended
    shown: dict[str, Row]  # builds as the API shows them, by key
    tables: dict[str, list[Row]]
    blobs: Sequence[Blob]
    leftovers: Sequence[str]  # of the spool: neither blob nor set aside
    health: Sequence[Row]  # /readyz of every gateway, when all was calm
    ends: Sequence[End]
    codes: Sequence[int]  # of the last processes, that were asked to end
    texts: Sequence[str]  # output, pages and dump

    def rows(self, table: str, **where: Any) -> list[Row]:
        """Return the rows of a table that have these values."""
        return [row for row in self.tables[table] if all(row[name] == value for name, value in where.items())]


async def page(gateway: FaultyGateway, path: str) -> tuple[int, str]:
    """Ask the admin listener; return status and text with its headers."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PAGE_SECONDS)) as http,
        http.get(gateway.admin_url + path, headers={"X-Auth-Token": ADMIN}) as answer,
    ):
        return answer.status, f"{dict(answer.headers)}\n{await answer.text()}"


async def health(gateway: FaultyGateway) -> Row:
    """Return what /readyz of the admin listener says."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PAGE_SECONDS)) as http,
        http.get(f"{gateway.admin_url}/readyz") as answer,
    ):
        return dict(await answer.json())


async def read_tables(stage: Stage) -> dict[str, list[Row]]:
    """Return every row of every table; no gateway runs any more."""
    if stage.postgres is None:
        return _read_sqlite(stage)
    connection = await asyncpg.connect(stage.postgres.url())
    try:
        return {name: [dict(row) for row in await connection.fetch(_all(name))] for name in metadata.tables}
    finally:
        await connection.close()


def _read_sqlite(stage: Stage) -> dict[str, list[Row]]:
    with closing(sqlite3.connect(stage.folder / "data" / "bridge.db")) as connection:
        connection.row_factory = sqlite3.Row
        return {name: [dict(row) for row in connection.execute(_all(name))] for name in metadata.tables}


def _all(table: str) -> str:
    return f"SELECT * FROM {table}"  # noqa: S608 -- our own names


def read_spool(stage: Stage) -> tuple[list[Blob], list[str], str]:
    """Return the blobs of the spool, what else lies there, and all its bytes as a text."""
    return _read_disk(stage) if stage.weed is None else _read_s3(stage)


def _read_disk(stage: Stage) -> tuple[list[Blob], list[str], str]:
    root = stage.folder / "data" / "spool"
    blobs, leftovers, content = [], [], []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = str(path.relative_to(root))
        content.append(path.read_bytes().decode("latin1"))
        if not is_key(name):
            leftovers += [] if name.startswith(ASIDE) else [name]
            continue
        digest = sha256(content_of(path)).hexdigest()
        blobs.append(Blob(name=name, digest=digest, written_at=path.stat().st_mtime_ns // 1000))
    return blobs, leftovers, "\n".join(content)


def _read_s3(stage: Stage) -> tuple[list[Blob], list[str], str]:
    assert stage.weed is not None
    blobs, content = [], []
    with stage.weed.client() as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
        found = [each for page in pages for each in page.get("Contents", [])]
        for each in found:
            name = each["Key"].removeprefix(PREFIX)
            if not is_key(name):
                continue
            body = client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()
            content.append(body.decode("latin1"))
            written_at = int(each["LastModified"].timestamp() * 1_000_000)
            blobs.append(Blob(name=name, digest=sha256(body).hexdigest(), written_at=written_at))
    return blobs, [], "\n".join(content)
