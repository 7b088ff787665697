"""Add the tables of notices: events, groups of events, targets, and conditions that were announced."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "notice_events",
        sa.Column("id", ID, nullable=False),
        sa.Column("happened_at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("route", sa.String(128), nullable=False),
        sa.Column("targets", sa.JSON, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notice_events"),
    )
    op.create_table(
        "notices",
        sa.Column("target", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("route", sa.String(128), nullable=False),
        sa.Column("collected", sa.JSON(none_as_null=True)),
        sa.Column("sealed", sa.JSON(none_as_null=True)),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("fencing_token", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("target", "kind", "route", name="pk_notices"),
    )
    op.create_table(
        "notice_targets",
        sa.Column("target", sa.String(32), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("slot_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("failing_since", sa.BigInteger),
        sa.Column("last_error", sa.Text),
        sa.PrimaryKeyConstraint("target", name="pk_notice_targets"),
    )
    op.create_table(
        "notice_conditions",
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("announced_at", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_notice_conditions"),
    )
