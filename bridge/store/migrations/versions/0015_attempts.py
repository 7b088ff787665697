"""Keep the newest attempts of deliveries and finalizes; find builds by caller, and registrations by delivery."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("call", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("status", sa.BigInteger()),
        sa.Column("reason", sa.Text()),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name="fk_attempts_build_id"),
        sa.PrimaryKeyConstraint("build_id", "delivery_id", "slot", name="pk_attempts"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_registrations_delivery_id", "registrations", ["delivery_id"])
    op.create_index("ix_reports_caller", "reports", ["caller", "build_id"])
