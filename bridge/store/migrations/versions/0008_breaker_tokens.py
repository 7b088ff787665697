"""Record with which project token, as a digest, TestNod last accepted and rejected calls of a route."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("circuit_breakers", sa.Column("accepted_token", sa.String(32)))
    op.add_column("circuit_breakers", sa.Column("rejected_token", sa.String(32)))
