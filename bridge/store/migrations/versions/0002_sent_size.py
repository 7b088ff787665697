"""Reports may be sent in other bytes than they came in: what is sent has a size of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A constant default, because SQLite then adds the column without copying the table with all its bytes.
    op.add_column("reports", sa.Column("sent_size", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.execute("UPDATE reports SET sent_size = size")
