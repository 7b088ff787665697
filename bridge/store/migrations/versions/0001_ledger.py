"""The ledger's first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "builds",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("build_no", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("finalized_seq", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("waits_for", sa.String(length=128), nullable=True),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.Column("last_report_at", sa.BigInteger(), nullable=False),
        sa.Column("said", sa.JSON(), nullable=False),
        sa.Column("complete_at", sa.BigInteger(), nullable=True),
        sa.Column("look_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.String(length=16), nullable=True),
        sa.Column("ended_report_at", sa.BigInteger(), nullable=True),
        sa.Column("build_result", sa.String(length=64), nullable=True),
        sa.Column("polled_at", sa.BigInteger(), nullable=True),
        sa.Column("polls", sa.BigInteger(), nullable=False),
        sa.Column("poll_due_at", sa.BigInteger(), nullable=False),
        sa.Column("poll_reserved", sa.Boolean(), nullable=False),
        sa.Column("unknown_since", sa.BigInteger(), nullable=True),
        sa.Column("described_at", sa.BigInteger(), nullable=True),
        sa.Column("describe_attempts", sa.BigInteger(), nullable=False),
        sa.Column("describe_due_at", sa.BigInteger(), nullable=False),
        sa.Column("describe_reserved", sa.Boolean(), nullable=False),
        sa.Column("record", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("identity_mismatch", sa.Text(), nullable=True),
        sa.Column("route", sa.String(length=128), nullable=False),
        sa.Column("pin", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("held", sa.Text(), nullable=True),
        sa.Column("finalize_attempts", sa.BigInteger(), nullable=False),
        sa.Column("finalize_due_at", sa.BigInteger(), nullable=False),
        sa.Column("finalize_failing_since", sa.BigInteger(), nullable=True),
        sa.Column("finalized_at", sa.BigInteger(), nullable=True),
        sa.Column("confirm_until", sa.BigInteger(), nullable=True),
        sa.Column("confirm_due_at", sa.BigInteger(), nullable=False),
        sa.Column("confirm_attempts", sa.BigInteger(), nullable=False),
        sa.Column("hold_since", sa.BigInteger(), nullable=True),
        sa.Column("hold_away_us", sa.BigInteger(), nullable=False),
        sa.Column("stuck", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_builds")),
        sa.UniqueConstraint("source", "key", name=op.f("uq_builds_source_key")),
    )
    op.create_index(
        "ix_builds_due",
        "builds",
        ["route", "due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_builds_held",
        "builds",
        ["id"],
        unique=False,
        sqlite_where=sa.text("held IS NOT NULL"),
        postgresql_where=sa.text("held IS NOT NULL"),
    )
    op.create_index("ix_builds_job_id", "builds", ["job_id", "id"], unique=False)
    op.create_index("ix_builds_route", "builds", ["route", "id"], unique=False)
    op.create_index("ix_builds_state", "builds", ["state", "id"], unique=False)
    op.create_index(
        "ix_builds_stuck",
        "builds",
        ["id"],
        unique=False,
        sqlite_where=sa.text("stuck IS NOT NULL"),
        postgresql_where=sa.text("stuck IS NOT NULL"),
    )
    op.create_index(
        "ix_builds_waits_for",
        "builds",
        ["waits_for"],
        unique=False,
        sqlite_where=sa.text("waits_for IS NOT NULL"),
        postgresql_where=sa.text("waits_for IS NOT NULL"),
    )
    op.create_table(
        "refusals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("caller", sa.String(length=128), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
    )
    op.create_index("ix_refusals_at", "refusals", ["at"], unique=False)
    op.create_index("ix_refusals_key", "refusals", ["source", "key"], unique=False)
    op.create_table(
        "upstreams",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("failing_since", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("probes", sa.BigInteger(), nullable=False),
        sa.Column("probe_at", sa.BigInteger(), nullable=True),
        sa.Column("away_us", sa.BigInteger(), nullable=False),
        sa.Column("next_slot_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_upstreams")),
    )
    op.create_table(
        "reports",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("dedupe_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("node_id", sa.String(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("received_sha256", sa.String(length=64), nullable=False),
        sa.Column("sent_sha256", sa.String(length=64), nullable=False),
        sa.Column("suites", sa.BigInteger(), nullable=False),
        sa.Column("tests", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("flaky", sa.BigInteger(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.Column("caller", sa.String(length=128), nullable=False),
        sa.Column("caller_routes", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("blob", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_reports_build_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
        sa.UniqueConstraint("build_id", "dedupe_key", name=op.f("uq_reports_build_id_dedupe_key")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("test_run_id", sa.String(length=64), nullable=False),
        sa.Column("test_run_url", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=True),
        sa.Column("finalized_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_runs_build_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("build_id", "test_run_id", name=op.f("uq_runs_build_id_test_run_id")),
    )
    for name, column, where in (
        ("ix_reports_with_bytes", "id", sa.text("body IS NOT NULL OR blob IS NOT NULL")),
        ("ix_reports_blob", "blob", sa.text("blob IS NOT NULL")),
    ):
        op.create_index(name, "reports", [column], unique=False, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("report_id", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("owed_since", sa.BigInteger(), nullable=False),
        sa.Column("trying_since", sa.BigInteger(), nullable=True),
        sa.Column("trying_away_us", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("conflicted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_deliveries_build_id")),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_deliveries_report_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("report_id", "target", name=op.f("uq_deliveries_report_id_target")),
    )
    op.create_index("ix_deliveries_build_id", "deliveries", ["build_id"], unique=False)
    op.create_index(
        "ix_deliveries_unfinished",
        "deliveries",
        ["state", "target"],
        unique=False,
        sqlite_where=sa.text("state <> 'delivered'"),
        postgresql_where=sa.text("state <> 'delivered'"),
    )
    op.create_table(
        "registrations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("test_run_id", sa.String(length=64), nullable=True),
        sa.Column("upload_id", sa.String(length=64), nullable=True),
        sa.Column("presigned_url", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("named_at", sa.BigInteger(), nullable=True),
        sa.Column("stored_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("failing_since", sa.BigInteger(), nullable=True),
        sa.Column("put_refusal", sa.String(length=32), nullable=True),
        sa.Column("put_uncertain", sa.Boolean(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_registrations_build_id")),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_registrations_delivery_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registrations")),
    )
    op.create_index("ix_registrations_build_id", "registrations", ["build_id"], unique=False)
