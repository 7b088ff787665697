"""The ledger's tables: one schema for SQLite and PostgreSQL.

Ids are bigint below 2^53, times bigint microseconds UTC (SQLite does not store time zones). The migrations create these
tables; a test compares the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    text,
)

NAME_LENGTH = 512
"""Characters of a file's name as it is shown: PostgreSQL limits the size of index rows."""

Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER PRIMARY KEY is generated there

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

builds = Table(
    "builds",
    metadata,
    Column("id", Id, primary_key=True),
    Column("source", String(16), nullable=False),  # codearts
    Column("key", String(128), nullable=False),  # {job_id}/{build_no}
    Column("job_id", String(32)),
    Column("build_no", BigInteger),
    Column("state", String(32), nullable=False),
    Column("report_seq", BigInteger, nullable=False),
    Column("finalized_seq", BigInteger, nullable=False),
    # when it is due, and its lease
    Column("due_at", BigInteger),  # null: nothing to do until something arrives
    Column("waiting_on", String(128)),  # the open breaker, or the job's queue, that ends the wait early
    Column("lease_owner", String(64)),
    Column("lease_until", BigInteger),
    Column("fencing_token", BigInteger, nullable=False),
    # its uploads
    Column("accepted_at", BigInteger, nullable=False),
    Column("last_report_at", BigInteger, nullable=False),
    Column("upload_metadata", JSON, nullable=False),
    Column("complete_at", BigInteger),
    Column("poll_requested_at", BigInteger),
    # its end
    Column("ended_at", BigInteger),
    Column("end_reason", String(16)),
    Column("ended_report_at", BigInteger),
    Column("build_result", String(64)),
    Column("polled_at", BigInteger),
    Column("polls", BigInteger, nullable=False),
    Column("poll_due_at", BigInteger, nullable=False),
    Column("poll_reserved", Boolean, nullable=False),
    Column("not_found_since", BigInteger),
    # its record-info
    Column("described_at", BigInteger),
    Column("describe_attempts", BigInteger, nullable=False),
    Column("describe_due_at", BigInteger, nullable=False),
    Column("describe_reserved", Boolean, nullable=False),
    Column("record", JSON(none_as_null=True)),
    Column("metadata_mismatch", Text),
    # its runs at TestNod
    Column("route", String(128), nullable=False),  # empty until its run parameters are chosen
    Column("run_parameters", JSON(none_as_null=True)),
    Column("blocked_reason", Text),
    Column("finalize_attempts", BigInteger, nullable=False),
    Column("finalize_due_at", BigInteger, nullable=False),
    Column("finalize_failing_since", BigInteger),
    Column("finalized_at", BigInteger),
    Column("confirm_until", BigInteger),
    Column("confirm_due_at", BigInteger, nullable=False),
    Column("confirm_attempts", BigInteger, nullable=False),
    Column("code_check", JSON(none_as_null=True)),  # null: no code check so far
    Column("finalize_hold_since", BigInteger),
    Column("outage_us_at_hold", BigInteger, nullable=False),
    # its mirror at CodeArts
    Column("mirror", Text),
    Column("mirror_compared_at", BigInteger),
    Column("mirror_due_at", BigInteger, nullable=False, server_default=text("0")),
    Column("stuck_reason", Text),
    Column("last_error", Text),
    UniqueConstraint("source", "key"),
)
Index("ix_builds_due", builds.c.route, builds.c.due_at, sqlite_where=text("due_at IS NOT NULL"),
      postgresql_where=text("due_at IS NOT NULL"))  # fmt: skip
Index("ix_builds_waiting_on", builds.c.waiting_on, builds.c.id, sqlite_where=text("waiting_on IS NOT NULL"),
      postgresql_where=text("waiting_on IS NOT NULL"))  # fmt: skip
Index("ix_builds_stuck_reason", builds.c.id, sqlite_where=text("stuck_reason IS NOT NULL"),
      postgresql_where=text("stuck_reason IS NOT NULL"))  # fmt: skip
Index("ix_builds_blocked_reason", builds.c.id, sqlite_where=text("blocked_reason IS NOT NULL"),
      postgresql_where=text("blocked_reason IS NOT NULL"))  # fmt: skip
Index("ix_builds_job_id", builds.c.job_id, builds.c.id)
Index("ix_builds_state", builds.c.state, builds.c.id)
Index("ix_builds_route", builds.c.route, builds.c.id)
# Unfinished builds are few among all builds of their job or route.
Index("ix_builds_unfinished_job", builds.c.job_id, builds.c.state, builds.c.id,
      sqlite_where=text("state <> 'finalized'"), postgresql_where=text("state <> 'finalized'"))  # fmt: skip
Index("ix_builds_unfinished_route", builds.c.route, builds.c.state, builds.c.id,
      sqlite_where=text("state <> 'finalized'"), postgresql_where=text("state <> 'finalized'"))  # fmt: skip
UNFINISHED_BUILD = builds.c.state != literal_column("'finalized'")
"""The condition of these indexes, literally: PostgreSQL's plans for prepared statements cannot use them otherwise."""

reports = Table(
    "reports",
    metadata,
    Column("id", Id, primary_key=True),
    Column("build_id", BigInteger, ForeignKey("builds.id"), nullable=False),
    Column("dedupe_key", LargeBinary(32), nullable=False),
    Column("source", String(16), nullable=False),  # upload or check
    Column("name", String(NAME_LENGTH), nullable=False),  # escaped and shortened
    Column("node_id", String(32), nullable=False),
    Column("size", BigInteger, nullable=False),  # as received
    Column("sent_size", BigInteger, nullable=False, server_default=text("0")),
    Column("received_sha256", String(64), nullable=False),
    Column("sent_sha256", String(64), nullable=False),
    Column("suites", BigInteger, nullable=False),
    Column("tests", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("flaky", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("notes", JSON, nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    Column("caller", String(128), nullable=False),
    Column("caller_routes", JSON(none_as_null=True)),  # null: any
    Column("address", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("body", LargeBinary),  # of small reports, until they are delivered
    Column("blob", String(128)),  # of other reports: the key in the spool
    UniqueConstraint("build_id", "dedupe_key"),
)

Index("ix_reports_with_bytes", reports.c.id, sqlite_where=text("body IS NOT NULL OR blob IS NOT NULL"),
      postgresql_where=text("body IS NOT NULL OR blob IS NOT NULL"))  # fmt: skip
Index("ix_reports_blob", reports.c.blob, sqlite_where=text("blob IS NOT NULL"),
      postgresql_where=text("blob IS NOT NULL"))  # fmt: skip

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("build_id", BigInteger, ForeignKey("builds.id"), nullable=False),
    Column("report_id", BigInteger, ForeignKey("reports.id"), nullable=False),
    Column("target", String(16), nullable=False),
    Column("state", String(32), nullable=False),
    Column("pending_since", BigInteger, nullable=False),
    Column("first_failure_at", BigInteger),
    Column("outage_us_at_first_failure", BigInteger, nullable=False),
    Column("rejected_since", BigInteger),
    Column("attempts", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("send_alone", Boolean, nullable=False, server_default=false()),
    Column("delivered_at", BigInteger),
    Column("last_error", Text),
    Column("unread", Text),
    Column("unread_since", BigInteger),
    Column("unread_at", BigInteger),
    UniqueConstraint("report_id", "target"),
)
Index("ix_deliveries_build_id", deliveries.c.build_id)
Index("ix_deliveries_unfinished", deliveries.c.state, deliveries.c.target, sqlite_where=text("state <> 'delivered'"),
      postgresql_where=text("state <> 'delivered'"))  # fmt: skip
UNFINISHED_DELIVERY = deliveries.c.state != literal_column("'delivered'")
"""The condition of this index, literally."""

registrations = Table(
    "registrations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("build_id", BigInteger, ForeignKey("builds.id"), nullable=False),
    Column("delivery_id", BigInteger, ForeignKey("deliveries.id"), nullable=False),
    Column("state", String(32), nullable=False),
    Column("fencing_token", BigInteger, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("test_run_id", String(64)),
    Column("upload_id", String(64)),
    Column("presigned_url", Text),  # a secret: deleted when it is no longer needed
    Column("expires_at", BigInteger),
    Column("registered_at", BigInteger),
    Column("stored_at", BigInteger),
    Column("attempts", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("failing_since", BigInteger),
    Column("put_outcome_unknown", Boolean, nullable=False),
    Column("failure", Text),
)
Index("ix_registrations_build_id", registrations.c.build_id)

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("build_id", BigInteger, ForeignKey("builds.id"), nullable=False),
    Column("test_run_id", String(64), nullable=False),
    Column("test_run_url", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("status", String(32)),
    Column("finalized_at", BigInteger),
    Column("project_id", String(64), nullable=False, server_default=text("''")),  # empty: not in TestNod's response
    UniqueConstraint("build_id", "test_run_id"),
)

rejections = Table(
    "rejections",
    metadata,
    Column("id", Id, primary_key=True),
    Column("source", String(16), nullable=False),
    Column("key", String(128), nullable=False),  # of the build, which may have no row
    Column("job_id", String(32)),
    Column("rejected_at", BigInteger, nullable=False),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("reason", Text, nullable=False),
    Column("code", String(32), nullable=False),
    Column("caller", String(128), nullable=False),
    Column("address", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    # a file that came whole; null if none did
    Column("route", String(128)),  # for which it was meant; empty: none
    Column("node_id", String(32)),
    Column("raw_name", LargeBinary),  # UTF-8, or the bytes as received
    Column("size", BigInteger),
    Column("sha256", String(64)),
    Column("wire_size", BigInteger),  # as received: differs from size and sha256 if the file was compressed
    Column("wire_sha256", String(64)),
    Column("file_key", LargeBinary(32)),
    Column("upload_metadata", JSON(none_as_null=True)),
    Column("caller_routes", JSON(none_as_null=True)),  # null: any
    Column("body", LargeBinary),  # of small files, while they are kept
    Column("blob", String(128)),  # of other files: the key in the spool
    Column("kept_until", BigInteger),  # null: there are no bytes
    Column("sent_at", BigInteger),  # when it was accepted from the quarantine
)
Index("ix_rejections_file_key", rejections.c.source, rejections.c.key, rejections.c.file_key, unique=True)
Index("ix_rejections_rejected_at", rejections.c.rejected_at)
Index("ix_rejections_job_id", rejections.c.job_id, rejections.c.id)
Index("ix_rejections_route", rejections.c.route, rejections.c.id, sqlite_where=text("route IS NOT NULL"),
      postgresql_where=text("route IS NOT NULL"))  # fmt: skip
Index("ix_rejections_kept", rejections.c.route, rejections.c.kept_until, rejections.c.size,
      sqlite_where=text("kept_until IS NOT NULL"), postgresql_where=text("kept_until IS NOT NULL"))  # fmt: skip
Index("ix_rejections_blob", rejections.c.blob, sqlite_where=text("blob IS NOT NULL"),
      postgresql_where=text("blob IS NOT NULL"))  # fmt: skip

circuit_breakers = Table(
    "circuit_breakers",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("failures", BigInteger, nullable=False),
    Column("opened_at", BigInteger),
    Column("reason", Text),
    Column("probes", BigInteger, nullable=False),
    Column("probe_at", BigInteger),
    Column("total_outage_us", BigInteger, nullable=False),
    Column("next_rate_slot_at", BigInteger, nullable=False),  # of the shared polling rate
    Column("probed_at", BigInteger),
    Column("first_failure_at", BigInteger),
    Column("succeeded_at", BigInteger),
    Column("builds", JSON(none_as_null=True)),  # ids of builds whose calls failed
)
