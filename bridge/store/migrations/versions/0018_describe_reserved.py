"""Drop what no component reads: whether a slot was reserved for a question about a record."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("builds", "describe_reserved")
