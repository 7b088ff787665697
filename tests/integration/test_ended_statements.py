"""A PostgreSQL that ends the statements of uploads: they are answered 503, and readiness is red, until it lets them be.

A limit of a millisecond does that to some statements and not to others. Here one waits for far longer than its limit.
"""

import aiohttp
import asyncpg
import pytest

from bridge.app.gateway import Gateway
from bridge.sandbox.sandbox import Sandbox
from bridge.server import health
from bridge.server.http.requests import UPLOAD_PATH
from bridge.settings import load
from bridge.store.engine import postgres as engine
from tests.support.whole import JOB, JUNIT, OPEN, POLLING, SHOP, ground, until

LIMIT = "500ms"
WAIT_FOR_EVER = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600); RETURN NULL; END $$;
CREATE TRIGGER slow BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION wait()
"""
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
"""A limit holds for sessions that begin after it was set."""


@pytest.fixture
async def url(postgres):
    async with postgres.new_url() as url:
        yield url


@pytest.fixture
async def direct(url):
    """A connection to the same database, without a limit."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def running(tmp_path, url):
    async with Sandbox() as sandbox:
        path = tmp_path / "bridge.toml"
        where = ground(tmp_path, sandbox).replace(f"sqlite:///{tmp_path}/bridge.db", url)
        path.write_text(f"{where}{POLLING.format(poll_after='0s', poll_every='1s')}{OPEN}{SHOP}")
        async with Gateway(load(path, {})) as running:
            yield running


async def upload(running, build_no):
    """Upload a report and a file that is none; return the answer."""
    form = aiohttp.FormData()
    form.add_field("files", JUNIT, filename="a.xml")
    form.add_field("files", b"none", filename="b.xml")
    url = f"{running.server_url}{UPLOAD_PATH}?job_id={JOB}&build_no={build_no}&node_id=n"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        return answer.status, await answer.json()


async def readiness(running):
    """Return the status for CI, and the reasons for operators."""
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{running.server_url}/readyz") as answer:
            status = answer.status
        async with http.get(f"{running.admin_url}/readyz") as answer:
            return status, (await answer.json())["reasons"]


ENDED = "QueryCanceledError, SQLSTATE 57014"


async def limit(direct, running):
    """Let the statements of new sessions end after LIMIT, and wait until the gateway has such sessions."""
    name = await direct.fetchval("SELECT current_database()")
    await direct.execute(f"ALTER DATABASE {name} SET statement_timeout = '{LIMIT}'")
    await direct.execute(END_SESSIONS)
    await until(lambda: is_ready(running))  # its statements are faster than the limit


async def is_ready(running):
    return await readiness(running) == (200, [])


async def is_red(running, reason):
    status, reasons = await readiness(running)
    return status == 503 and any(each.startswith(reason) for each in reasons)


@pytest.mark.parametrize("table", ["builds", "reports", "deliveries", "rejections"])
async def test_while_statements_of_uploads_are_ended_they_are_503_and_readiness_is_red(
    running, direct, monkeypatch, table
):
    status, sound = await upload(running, 1)
    await limit(direct, running)
    monkeypatch.setattr(engine, "GIVE_UP_SECONDS", 0.1)  # after one try
    await direct.execute(WAIT_FOR_EVER.format(table=table))
    for build_no in (2, 3):
        answered, answer = await upload(running, build_no)
        assert (answered, answer["error_code"]) == (503, "BRIDGE.UNAVAILABLE")
    await until(lambda: is_red(running, f"The ledger cannot be used right now ({ENDED})."))

    monkeypatch.undo()
    await direct.execute("DROP FUNCTION wait() CASCADE")
    await until(lambda: is_ready(running))
    assert await upload(running, 2) == (status, sound)


async def test_readiness_names_what_ends_the_tries_of_a_write(running, direct, monkeypatch):
    monkeypatch.setattr(health, "LEDGER_SECONDS", 2.0)
    await limit(direct, running)
    await direct.execute(WAIT_FOR_EVER.format(table="builds"))
    sentence = f"The ledger accepted no write for 2 seconds: the last try failed ({ENDED})."
    await until(lambda: is_red(running, sentence))
    await direct.execute("DROP FUNCTION wait() CASCADE")
    await until(lambda: is_ready(running))
