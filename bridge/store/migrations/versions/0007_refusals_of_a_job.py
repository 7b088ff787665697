"""Refusals of a job are found by an index, whatever else was refused: their page read those of all jobs before."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("refusals", sa.Column("job_id", sa.String(32), nullable=True))
    op.execute("UPDATE refusals SET job_id = substr(key, 1, 32)")  # {job_id}/{build_no}, where a job_id has 32 letters
    op.create_index("ix_refusals_job_id", "refusals", ["job_id", "id"])
