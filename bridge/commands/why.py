"""`bridge why JOB NO`: asks the running gateway, or its ledger where none runs, what has become of a build.

It must not know how the sentence comes about: the core says it, the same to everybody.
"""

import asyncio
import json
import sqlite3
from http import HTTPStatus
from pathlib import Path

import aiohttp
from sqlalchemy import create_engine

from bridge.clock import SystemClock
from bridge.commands.configuration import read_settings
from bridge.commands.screen import remark, say
from bridge.domain.why import why
from bridge.errors import BridgeError, LedgerError
from bridge.settings.model import AdminSettings
from bridge.store.connecting import is_postgres
from bridge.store.ledger import path_of
from bridge.store.migrate import check, check_over
from bridge.store.postgres import PostgresDatabase
from bridge.store.views import Findings, find_why

ASK_SECONDS = 15.0  # the gateway may ask CodeArts first
CONNECT_SECONDS = 3.0  # it is near: usually on this machine
MAX_ANSWER_BYTES = 1024 * 1024  # a sentence and its fields; whatever else listens there may send without end
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on, and where one reaches them."""


def tell_why(path: Path, job_id: str, build_no: int) -> None:
    """Print one sentence; raise BridgeError where neither gateway nor ledger can be asked."""
    settings = read_settings(path)
    try:
        sentence = asyncio.run(_ask_gateway(settings.admin, job_id, build_no))
    except _NobodyThereError:
        remark(f"No gateway answers at {_admin_url(settings.admin)}: this is what its ledger says.")
        sentence = _sentence_of(_read_ledger(settings.store.url, job_id, build_no), job_id, build_no)
    say(sentence)


class _NobodyThereError(Exception):
    """No gateway listens at its admin address."""


async def _ask_gateway(admin: AdminSettings, job_id: str, build_no: int) -> str:
    """Return the sentence of GET /api/v1/why (contract: API)."""
    url = f"{_admin_url(admin)}/api/v1/why"
    headers = {"Authorization": f"Bearer {admin.token[0].get_secret_value()}"} if admin.token else {}
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS, connect=CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
            http.get(url, params={"job_id": job_id, "build_no": build_no}, allow_redirects=False) as answer,
        ):
            body = await _read(answer.content)
    except aiohttp.ClientConnectorError:
        raise _NobodyThereError from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BridgeError(f"The gateway at {url} did not answer ({type(error).__name__}). Look at its log.") from None
    return _sentence(url, answer.status, body)


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body)


def _sentence(url: str, status: int, body: bytes) -> str:
    try:
        answer = json.loads(body)
        if status == HTTPStatus.OK:
            return str(answer["sentence"])
        told = str(answer["error_msg"])
    except (ValueError, KeyError, TypeError):
        raise BridgeError(
            f"What answers at {url} is no gateway (status {status}). Correct admin.host and admin.port."
        ) from None
    raise BridgeError(told)


def _admin_url(admin: AdminSettings) -> str:
    host = ANYWHERE.get(admin.host, admin.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{admin.port}"


def _read_ledger(url: str, job_id: str, build_no: int) -> Findings:
    """Return what the ledger alone knows, without writing to it."""
    if is_postgres(url):
        return asyncio.run(_read_postgres(url, job_id, build_no))
    return _read_sqlite(path_of(url), job_id, build_no)


async def _read_postgres(url: str, job_id: str, build_no: int) -> Findings:
    async with PostgresDatabase(url, SystemClock()) as database:
        await database.read(check_over)
        return await database.read(find_why, job_id, build_no)


def _read_sqlite(path: Path, job_id: str, build_no: int) -> Findings:
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


def _sentence_of(found: Findings, job_id: str, build_no: int) -> str:
    return why(
        job_id=job_id,
        build_no=build_no,
        build=found.build,
        refusals=found.refusals,
        gates=found.gates,
        now=SystemClock().now(),
        codearts_says=None,
    ).sentence
