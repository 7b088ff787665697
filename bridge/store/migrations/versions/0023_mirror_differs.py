"""Index the builds whose mirror at CodeArts does not agree."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    differs = sa.text("mirror <> 'agrees'")
    op.create_index("ix_builds_mirror_differs", "builds", ["id"], sqlite_where=differs, postgresql_where=differs)
