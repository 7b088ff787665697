"""Note in the ledger which programs can use it: those of the schema `compatible_from` or a newer one."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "alembic_version", sa.Column("compatible_from", sa.String(32), nullable=False, server_default=revision)
    )
