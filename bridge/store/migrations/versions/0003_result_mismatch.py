"""Record how CodeArts' result of a build differs from its reports."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("result_mismatch", sa.String(length=16), nullable=True))
    op.create_index(
        "ix_builds_result_mismatch",
        "builds",
        ["ended_at"],
        unique=False,
        sqlite_where=sa.text("result_mismatch IS NOT NULL"),
        postgresql_where=sa.text("result_mismatch IS NOT NULL"),
    )
