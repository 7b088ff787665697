"""Index the rejections of unproven callers, of which few are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_rejections_unproven",
        "rejections",
        ["address", "id"],
        unique=False,
        sqlite_where=sa.text("caller = ''"),
        postgresql_where=sa.text("caller = ''"),
    )
