"""A delivery keeps why, since when and when last the spool did not return its report's bytes."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("unread", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("unread_since", sa.BigInteger(), nullable=True))
    op.add_column("deliveries", sa.Column("unread_at", sa.BigInteger(), nullable=True))
