"""Keep what callers of different routes do to one build apart."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("bound_metadata", "complete_routes"):
        op.add_column("builds", sa.Column(name, sa.JSON(none_as_null=True), nullable=True))
    op.add_column("builds", sa.Column("record_missing", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("rejections", sa.Column("is_foreign", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        "ix_rejections_foreign",
        "rejections",
        ["caller", "id"],
        unique=False,
        sqlite_where=sa.text("is_foreign"),
        postgresql_where=sa.text("is_foreign"),
    )
    op.drop_index("ix_rejections_kept", "rejections")
    op.create_index(
        "ix_rejections_kept",
        "rejections",
        ["route", "caller", "kept_until", "size"],
        unique=False,
        sqlite_where=sa.text("kept_until IS NOT NULL"),
        postgresql_where=sa.text("kept_until IS NOT NULL"),
    )
