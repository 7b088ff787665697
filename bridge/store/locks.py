"""Row locks on builds, and the fencing tokens that do not change while they are held."""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from bridge.store.engine.compiled import Statement, is_one_of
from bridge.store.schema import builds

LOCK_BUILDS = Statement(
    select(builds.c.id, builds.c.fencing_token)
    .where(is_one_of(builds.c.id, "ids"))
    .order_by(builds.c.id)
    .with_for_update(key_share=True)
)


def lock_builds(connection: Connection, build_ids: Iterable[int]) -> dict[int, int]:
    """Lock builds until the end of the transaction; return their fencing tokens, which do not change until then."""
    return dict(LOCK_BUILDS.rows(connection, {"ids": sorted(build_ids)}))


def lock_build(connection: Connection, build_id: int) -> None:
    """Lock a build until the end of the transaction."""
    lock_builds(connection, [build_id])
