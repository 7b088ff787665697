"""Create the table of used signatures."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signature_uses",
        sa.Column("signature_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("signature_key", name="pk_signature_uses"),
    )
    op.create_index("ix_signature_uses_kept_until", "signature_uses", ["kept_until"], unique=False)
