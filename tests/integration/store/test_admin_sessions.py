import asyncio

import pytest
from sqlalchemy import select

from bridge.store import admin_sessions as module
from bridge.store.admin_sessions import AdminSession, begin_sessions, end_sessions, find_session, shared_secrets
from bridge.store.schema import admin_sessions


def session(number, *, role="viewer", expires_at=1 << 60):
    key = bytes([number]) * 32
    return AdminSession(session_key=key, token_proof=b"p" * 32, role=role, name="Ann", expires_at=expires_at)


@pytest.fixture
def begin(database):
    async def begin(*args, **values):
        begun = session(*args, **values)
        await database.write(begin_sessions, begun)
        return begun

    return begin


async def test_a_session_is_found_until_it_expires_or_ends(database, begin, clock):
    until = clock.now() + 10
    begun = await begin(1, expires_at=until)
    assert await database.read(find_session, begun.session_key, until - 1) == begun
    assert await database.read(find_session, begun.session_key, until) is None
    assert await database.read(find_session, b"x" * 32, until - 1) is None
    await database.write(end_sessions, begun.session_key)
    assert await database.read(find_session, begun.session_key, until - 1) is None


async def test_expired_sessions_are_deleted_and_the_oldest_of_a_role_makes_way(ledger, begin, clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    now = clock.now()
    await begin(1, expires_at=now)
    await begin(2, role="operator", expires_at=now + 1_000_000)
    for number in (3, 4, 5):
        await begin(number, expires_at=now + number * 1_000_000)
    found = await ledger.rows(select(admin_sessions.c.session_key).order_by(admin_sessions.c.session_key))
    assert [bytes(row.session_key)[0] for row in found] == [2, 4, 5]


async def test_gateways_that_ask_at_once_share_one_secret(database):
    def ask(new):
        return database.write(shared_secrets, ("csrf", new))

    first, second = await asyncio.gather(ask(b"a" * 32), ask(b"b" * 32))
    assert first == second
    assert await ask(b"c" * 32) == first
    assert await database.write(shared_secrets, ("other", b"d" * 32)) == b"d" * 32
