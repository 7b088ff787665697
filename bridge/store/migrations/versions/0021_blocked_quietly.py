"""Keep whether the reason that blocks a build was no event, because it is a pause or is left to other gateways."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("blocked_quietly", sa.Boolean, nullable=False, server_default=sa.false()))
