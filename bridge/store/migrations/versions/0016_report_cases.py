"""Keep a digest of the cases of each report, for the history of a job. Rows go with their report."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "report_cases",
        sa.Column("report_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name="fk_report_cases_report_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("report_id", name="pk_report_cases"),
    )
