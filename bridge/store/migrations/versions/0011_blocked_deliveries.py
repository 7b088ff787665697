"""Record since when the settings keep a delivery from its target."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("blocked_since", sa.BigInteger()))
