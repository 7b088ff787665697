"""Keep uploads that are registered through TestNod's API, and what they state of their builds."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("submitted", sa.JSON()))
    op.add_column("builds", sa.Column("awaits_files", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("reports", sa.Column("failure", sa.Text()))
    op.create_table(
        "submissions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("caller", sa.String(128), nullable=False),
        sa.Column("caller_routes", sa.JSON()),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("given_up_at", sa.BigInteger(), nullable=False),
        sa.Column("file_sha256", sa.String(64)),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name="fk_submissions_build_id"),
        sa.PrimaryKeyConstraint("id", name="pk_submissions"),
    )
    op.create_index("ix_submissions_build_id", "submissions", ["build_id"])
    is_open = sa.text("state = 'open'")
    op.create_index(
        "ix_submissions_open", "submissions", ["given_up_at"], sqlite_where=is_open, postgresql_where=is_open
    )
