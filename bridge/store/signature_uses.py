"""Which body each AK/SK signature was used for, if the signature itself leaves the body out.

In the ledger, because a captured signature must serve no second body at another gateway or after a restart.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, select

from bridge.store.schema import signature_uses
from bridge.store.sql_helpers import insert_new
from bridge.values import dataclass

EXPIRED_PER_COMMIT = 128
"""Expired rows that a commit deletes. It is more than a commit inserts, so only valid ones accumulate."""

EXPIRED = (
    select(signature_uses.c.signature_key)
    .where(signature_uses.c.kept_until < bindparam("now"))
    .order_by(signature_uses.c.kept_until)
    .limit(EXPIRED_PER_COMMIT)
    .with_for_update(skip_locked=True)  # another writer may be deleting them
)
BODY_OF = select(signature_uses.c.body_sha256).where(signature_uses.c.signature_key == bindparam("used_key"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureUse:
    """A signature used for a body; `kept_until` is in microseconds UTC."""

    signature_key: bytes  # a digest of access key and signature
    body_sha256: bytes
    kept_until: int


def record_signature_uses(connection: Connection, now: int, uses: Sequence[SignatureUse]) -> list[bytes]:
    """Record uses; return for each the digest of the only body that its signature may be used for."""
    expired = connection.execute(EXPIRED, {"now": now}).scalars().all()
    if expired:
        connection.execute(delete(signature_uses).where(signature_uses.c.signature_key.in_(expired)))
    return [_record(connection, use) for use in uses]


def _record(connection: Connection, use: SignatureUse) -> bytes:
    row = {
        "signature_key": use.signature_key,
        "body_sha256": use.body_sha256,
        "kept_until": use.kept_until,
    }
    insert_new(connection, signature_uses, [row])
    return bytes(connection.execute(BODY_OF, {"used_key": use.signature_key}).scalar_one())
