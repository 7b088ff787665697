"""Keep one rate for each API of CodeArts, and what its lists show of builds."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("circuit_breakers", "next_rate_slot_at")
    for name in ("started_at", "running_at", "listed_at"):
        op.add_column("builds", sa.Column(name, sa.BigInteger))
    op.add_column("builds", sa.Column("listed_result", sa.String(64)))
    op.create_table(
        "request_rates",
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("api", sa.String(32), nullable=False),
        sa.Column("rate", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("account", "api", name="pk_request_rates"),
    )
    op.create_table(
        "asked_questions",
        sa.Column("subject", sa.String(80), nullable=False),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_asked_questions"),
    )
