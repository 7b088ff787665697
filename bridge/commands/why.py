"""`bridge why JOB NO`: print status, cause and action, from the running gateway, or from its ledger if none runs."""
# ruff: noqa: PLC0415 -- imported if the ledger is in PostgreSQL

import asyncio
import sqlite3
from pathlib import Path

from sqlalchemy import create_engine

from bridge.clock import SystemClock
from bridge.commands.admin_client import AdminAddress, GatewayNotRunning, request_admin_api
from bridge.commands.config import read_settings
from bridge.commands.console import print_note, print_result
from bridge.domain.text_format import capital
from bridge.domain.why import SEND_COMMAND, why
from bridge.errors import BridgeError, LedgerError
from bridge.server.http.requests import BuildName
from bridge.store.engine.postgres_url import is_postgres
from bridge.store.ledger import check, check_over, path_of, require_ledger
from bridge.store.queries import WhyInputs, find_why

PARTS = ("status", "cause", "action")


def print_why(path: Path, build: BuildName) -> None:
    """Print status, cause and action; raise BridgeError if neither gateway nor ledger can be read.

    If neither has the build, the fault of its name is raised.
    """
    named = AdminAddress.from_environment()
    admin = named or AdminAddress.find(path)
    try:
        answer = asyncio.run(_fetch_from_gateway(admin, build))
    except GatewayNotRunning:
        if named:
            raise BridgeError(f"No gateway answers at {admin.url}. Start it, or correct BRIDGE_ADMIN_URL.") from None
        print_note(f"No gateway answers at {admin.url}. This is the state in its ledger.")
        found = _read_ledger(read_settings(path).store.url, build)
        build.require(found=found.build is not None or bool(found.rejections))
        answer = _parts(found, build, admin)
    for name, clause in answer.items():
        print_result(f"{capital(name)}: {capital(clause)}.")


async def _fetch_from_gateway(admin: AdminAddress, build: BuildName) -> dict[str, str]:
    """Return status, cause and action of GET /api/v1/why."""
    params = {"job_id": build.job_id, "build_no": build.build_no}
    try:
        answer = await request_admin_api(admin, "/api/v1/why", params=params)
    except BridgeError as error:
        build.require(found=str(error) != str(build.fault))
        raise
    if not all(part in answer for part in PARTS):
        raise BridgeError(f"The server at {admin.url} is not a gateway. Correct {admin.correct}.")
    return {part: str(answer[part]) for part in PARTS}


def _read_ledger(url: str, build: BuildName) -> WhyInputs:
    """Return the rows about a build, without writing to the ledger."""
    if is_postgres(url):
        return asyncio.run(_read_postgres(url, build))
    return _read_sqlite(path_of(url), build)


async def _read_postgres(url: str, build: BuildName) -> WhyInputs:
    from bridge.store.engine.postgres import PostgresDatabase

    async with PostgresDatabase(url, SystemClock()) as database:
        await database.read(check_over)
        return await database.read(find_why, build.job_id, build.build_no)


def _read_sqlite(path: Path, build: BuildName) -> WhyInputs:
    if not path.exists():
        build.require(found=False)
        raise LedgerError(f"There is no ledger at {path} yet. Start the gateway, or correct store.url.")
    require_ledger(path)
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    )
    try:
        check(engine)
        with engine.connect() as connection:
            return find_why(connection, build.job_id, build.build_no)
    finally:
        engine.dispose()


def _parts(found: WhyInputs, build: BuildName, admin: AdminAddress) -> dict[str, str]:
    command = SEND_COMMAND.format(url=admin.url, id="{id}")
    answer = why(
        job_id=build.job_id,
        build_no=build.build_no,
        build=found.build,
        rejections=found.rejections,
        breakers=found.breakers,
        now=SystemClock().now(),
        polled=None,
        send_command=f'{command} -H "X-Auth-Token: $BRIDGE_ADMIN_TOKEN"' if admin.token else command,
    )
    return {part: getattr(answer, part) for part in PARTS}
