"""`bridge why JOB NO`: asks the running gateway, or its ledger where none runs, what has become of a build.

It must not know how the sentence comes about: the core says it, the same to everybody.
"""

import asyncio
import sqlite3
from pathlib import Path

from sqlalchemy import create_engine

from bridge.clock import SystemClock
from bridge.commands.admin_client import GatewayNotRunning, admin_url, ask
from bridge.commands.config import read_settings
from bridge.commands.console import remark, say
from bridge.domain.why import why
from bridge.errors import BridgeError, LedgerError
from bridge.settings.model import AdminSettings
from bridge.store.engine.postgres import PostgresDatabase, is_postgres
from bridge.store.ledger import check, check_over, path_of
from bridge.store.queries import WhyInputs, find_why


def print_why(path: Path, job_id: str, build_no: int) -> None:
    """Print one sentence; raise BridgeError where neither gateway nor ledger can be asked."""
    settings = read_settings(path)
    try:
        sentence = asyncio.run(_ask_gateway(settings.admin, job_id, build_no))
    except GatewayNotRunning:
        remark(f"No gateway answers at {admin_url(settings.admin)}: this is what its ledger says.")
        sentence = _sentence_of(_read_ledger(settings.store.url, job_id, build_no), job_id, build_no)
    say(sentence)


async def _ask_gateway(admin: AdminSettings, job_id: str, build_no: int) -> str:
    """Return the sentence of GET /api/v1/why (contract: API)."""
    answer = await ask(admin, "/api/v1/why", params={"job_id": job_id, "build_no": build_no})
    if "sentence" not in answer:
        raise BridgeError(f"What answers at {admin_url(admin)} is no gateway. Correct admin.host and admin.port.")
    return str(answer["sentence"])


def _read_ledger(url: str, job_id: str, build_no: int) -> WhyInputs:
    """Return what the ledger alone knows, without writing to it."""
    if is_postgres(url):
        return asyncio.run(_read_postgres(url, job_id, build_no))
    return _read_sqlite(path_of(url), job_id, build_no)


async def _read_postgres(url: str, job_id: str, build_no: int) -> WhyInputs:
    async with PostgresDatabase(url, SystemClock()) as database:
        await database.read(check_over)
        return await database.read(find_why, job_id, build_no)


def _read_sqlite(path: Path, job_id: str, build_no: int) -> WhyInputs:
    if not path.exists():
        raise LedgerError(f"There is no ledger at {path} yet. Start the gateway, or correct store.url.")
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    )
    try:
        check(engine)
        with engine.connect() as connection:
            return find_why(connection, job_id, build_no)
    finally:
        engine.dispose()


def _sentence_of(found: WhyInputs, job_id: str, build_no: int) -> str:
    return why(
        job_id=job_id,
        build_no=build_no,
        build=found.build,
        refusals=found.rejections,
        gates=found.breakers,
        now=SystemClock().now(),
        codearts_says=None,
    ).sentence
