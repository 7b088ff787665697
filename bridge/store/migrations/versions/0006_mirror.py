"""Builds know what CodeArts counts beside us, and when it was asked."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("mirror", sa.Text(), nullable=True))
    op.add_column("builds", sa.Column("mirror_compared_at", sa.BigInteger(), nullable=True))
    # A constant default, because SQLite then adds the column without copying the table.
    op.add_column("builds", sa.Column("mirror_due_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
