"""Keep the last outage of each circuit breaker as two instants, so that a correction of the clock corrects it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("circuit_breakers", sa.Column("outage_began_at", sa.BigInteger()))
    op.add_column("circuit_breakers", sa.Column("outage_ended_at", sa.BigInteger()))
