"""Keep an audit log of what operators do, and branch and commit of builds as columns, to search for them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    value = "JSON_EXTRACT(run_parameters, '$.{}')" if is_sqlite else "run_parameters->>'{}'"
    for name in ("branch", "commit"):
        op.add_column("builds", sa.Column(name, sa.Text()))
        fill = f'UPDATE builds SET "{name}" = {value.format(name)} WHERE run_parameters IS NOT NULL'  # noqa: S608
        op.execute(fill)
        known = sa.text(f'"{name}" IS NOT NULL')
        op.create_index(f"ix_builds_{name}", "builds", [name, "id"], sqlite_where=known, postgresql_where=known)
