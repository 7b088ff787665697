"""Sessions of the console: in the ledger, so that they last over restarts, count at every replica, and can be ended.

The ledger has neither cookies nor tokens, nor anything from which they could be guessed.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from bridge.store.engine.base import one_statement
from bridge.store.schema import admin_secrets, admin_sessions
from bridge.store.sql_helpers import insert_new
from bridge.values import dataclass

MAX_SESSIONS: Final = 500
"""Of one role. Beyond that the oldest one ends: viewers that sign in over and over end no operator's session."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminSession:
    """A session that ends at `expires_at` (microseconds UTC), or with the token that it began with."""

    session_key: bytes
    token_proof: bytes
    role: str
    name: str
    expires_at: int


def begin_sessions(connection: sa.Connection, now: int, sessions: Sequence[AdminSession]) -> list[None]:
    """Write sessions; delete those that have expired, and the oldest one if there are too many of the role."""
    for session in sessions:
        _begin(connection, now, session)
    return [None] * len(sessions)


def _begin(connection: sa.Connection, now: int, session: AdminSession) -> None:
    table = admin_sessions
    connection.execute(sa.delete(table).where(table.c.expires_at <= now))
    of_role = sa.select(table.c.session_key).where(table.c.role == session.role)
    surplus = of_role.order_by(table.c.expires_at.desc()).offset(MAX_SESSIONS - 1)
    connection.execute(sa.delete(table).where(table.c.session_key.in_(surplus.limit(MAX_SESSIONS))))
    connection.execute(
        sa.insert(table).values(
            session_key=session.session_key,
            token_proof=session.token_proof,
            role=session.role,
            name=session.name,
            expires_at=session.expires_at,
        )
    )


def end_sessions(connection: sa.Connection, _now: int, session_keys: Sequence[bytes]) -> list[None]:
    """Delete the sessions that have one of these keys."""
    connection.execute(sa.delete(admin_sessions).where(admin_sessions.c.session_key.in_(session_keys)))
    return [None] * len(session_keys)


@one_statement
def find_session(connection: sa.Connection, session_key: bytes, now: int) -> AdminSession | None:
    """Return the session with this key, None if there is none that lasts at `now`."""
    table = admin_sessions
    query = sa.select(table).where(table.c.session_key == session_key, table.c.expires_at > now)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else AdminSession(**row)


def shared_secrets(connection: sa.Connection, _now: int, secrets: Sequence[tuple[str, bytes]]) -> list[bytes]:
    """Return the secrets of these names; each is the given value if the ledger has none yet."""
    return [_shared(connection, name, new) for name, new in secrets]


def _shared(connection: sa.Connection, name: str, new: bytes) -> bytes:
    insert_new(connection, admin_secrets, [{"name": name, "value": new}])
    query = sa.select(admin_secrets.c.value).where(admin_secrets.c.name == name)
    return bytes(connection.execute(query).scalar_one())
