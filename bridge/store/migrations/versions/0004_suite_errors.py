"""Add what reports state outside of their cases, and their first failures."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("suite_errors", "disabled"):
        op.add_column("reports", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("reports", sa.Column("highlights", sa.JSON(none_as_null=True), nullable=True))
