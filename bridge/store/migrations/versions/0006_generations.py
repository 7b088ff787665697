"""Add the generation of registrations and runs: that of the run parameters they were opened with."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("registrations", "runs"):
        op.add_column(table, sa.Column("generation", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
