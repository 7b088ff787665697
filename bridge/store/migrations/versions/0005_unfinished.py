"""Builds that are not over, and refusals of a route, are found among as many others as there may be."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NOT_OVER = sa.text("state <> 'finalized'")
OF_ROUTE = sa.text("route IS NOT NULL")


def upgrade() -> None:
    for name, table, columns, which in (
        ("ix_builds_unfinished_job", "builds", ["job_id", "state", "id"], NOT_OVER),
        ("ix_builds_unfinished_route", "builds", ["route", "state", "id"], NOT_OVER),
        ("ix_refusals_route", "refusals", ["route", "id"], OF_ROUTE),
    ):
        op.create_index(name, table, columns, unique=False, sqlite_where=which, postgresql_where=which)
