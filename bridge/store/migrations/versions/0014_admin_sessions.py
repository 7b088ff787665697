"""Keep the console's sessions, and how the name of a person in the audit log was proven."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit", sa.Column("proof", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "admin_sessions",
        sa.Column("session_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("token_proof", sa.LargeBinary(length=32), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session_key", name="pk_admin_sessions"),
    )
    op.create_table(
        "admin_secrets",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("value", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_admin_secrets"),
    )
