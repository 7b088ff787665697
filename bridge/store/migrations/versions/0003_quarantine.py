"""Refused files that came whole keep their bytes for a while, and what it takes to send them after all."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEPT = sa.text("kept_until IS NOT NULL")
IN_SPOOL = sa.text("blob IS NOT NULL")


def upgrade() -> None:
    # Column by column and without defaults: SQLite then copies no table.
    for column in (
        sa.Column("route", sa.String(length=128), nullable=True),
        sa.Column("node_id", sa.String(length=32), nullable=True),
        sa.Column("raw_name", sa.LargeBinary(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("received", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("file_key", sa.LargeBinary(length=32), nullable=True),
        sa.Column("said", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("caller_routes", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("blob", sa.String(length=128), nullable=True),
        sa.Column("kept_until", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
    ):
        op.add_column("refusals", column)
    op.create_index("ix_refusals_file_key", "refusals", ["source", "key", "file_key"], unique=True)
    op.create_index(
        "ix_refusals_kept",
        "refusals",
        ["route", "kept_until", "size"],
        unique=False,
        sqlite_where=KEPT,
        postgresql_where=KEPT,
    )
    op.create_index(
        "ix_refusals_blob", "refusals", ["blob"], unique=False, sqlite_where=IN_SPOOL, postgresql_where=IN_SPOOL
    )
    op.drop_index("ix_refusals_key", "refusals")  # the first two columns of ix_refusals_file_key
