"""Builds know how far the asking of CodeArts Check is; answers of it that passed by are kept for them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("quality", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "overheard_checks",
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_overheard_checks"),
    )
