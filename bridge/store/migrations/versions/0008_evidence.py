"""Gates remember which builds failed at them, and runs the project that they were opened in."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("probed_at", "doubted_since", "succeeded_at"):
        op.add_column("upstreams", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("upstreams", sa.Column("builds", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("project_id", sa.String(64), server_default=sa.text("''"), nullable=False))
    op.add_column("deliveries", sa.Column("rejected_since", sa.BigInteger(), nullable=True))
    op.drop_column("registrations", "put_refusal")
    op.drop_index("ix_builds_waits_for", "builds")
    waiting = sa.text("waits_for IS NOT NULL")
    columns = ["waits_for", "id"]
    op.create_index("ix_builds_waits_for", "builds", columns, sqlite_where=waiting, postgresql_where=waiting)
