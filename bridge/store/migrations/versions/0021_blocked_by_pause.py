"""Keep whether the reason that blocks a build is a pause."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("blocked_by_pause", sa.Boolean, nullable=False, server_default=sa.false()))
