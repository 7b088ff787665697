"""The ledger's tables: one schema for SQLite and PostgreSQL.

Ids are bigint below 2^53, times bigint microseconds UTC (SQLite does not store time zones). The migrations create these
tables; a test compares the two.
"""

from typing import Any

import sqlalchemy as sa

NAME_LENGTH = 512
"""Characters of a file's name as it is shown: PostgreSQL limits the size of index rows."""

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # only INTEGER PRIMARY KEY is generated there

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _partial_index(name: str, *columns: sa.Column[Any], where: str) -> None:
    """Add an index of the rows that meet a condition."""
    sa.Index(name, *columns, sqlite_where=sa.text(where), info={"where": where})


@sa.event.listens_for(metadata, "before_create")
def _complete_for_postgres(_metadata: sa.MetaData, connection: sa.Connection, **_: Any) -> None:
    """Add the conditions for PostgreSQL: given at once, they would have every gateway import its dialects (20 ms)."""
    if connection.dialect.name == "postgresql":
        for index in (index for table in metadata.tables.values() for index in table.indexes):
            if "where" in index.info:
                index.dialect_options["postgresql"]["where"] = sa.text(index.info["where"])


builds = sa.Table(
    "builds",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("source", sa.String(16), nullable=False),  # codearts, or testnod for its submission API
    sa.Column("key", sa.String(128), nullable=False),  # {job_id}/{build_no}, or {route}/{build_id}
    sa.Column("job_id", sa.String(32)),  # of submitted builds: the queue in which they go in order; null: none
    sa.Column("build_no", sa.BigInteger),  # of submitted builds: when they were registered, which gives their order
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("report_seq", sa.BigInteger, nullable=False),
    sa.Column("finalized_seq", sa.BigInteger, nullable=False),
    # when it is due, and its lease
    sa.Column("due_at", sa.BigInteger),  # null: nothing to do until something arrives
    sa.Column("waiting_on", sa.String(128)),  # the open breaker, or the job's queue, that ends the wait early
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_until", sa.BigInteger),
    sa.Column("fencing_token", sa.BigInteger, nullable=False),
    # its uploads
    sa.Column("accepted_at", sa.BigInteger, nullable=False),
    sa.Column("last_report_at", sa.BigInteger, nullable=False),
    sa.Column("upload_metadata", sa.JSON, nullable=False),  # of callers that may use any route
    sa.Column("bound_metadata", sa.JSON(none_as_null=True)),  # of callers that are bound to routes
    sa.Column("submitted", sa.JSON(none_as_null=True)),  # what the first registration through TestNod's API stated
    sa.Column("awaits_files", sa.Boolean, nullable=False, server_default=sa.false()),  # it has open submissions
    sa.Column("complete_at", sa.BigInteger),
    sa.Column("complete_routes", sa.JSON(none_as_null=True)),  # of the callers that completed it; null: any
    sa.Column("poll_requested_at", sa.BigInteger),
    # its end
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("end_reason", sa.String(16)),
    sa.Column("ended_report_at", sa.BigInteger),
    sa.Column("build_result", sa.String(64)),
    sa.Column("result_mismatch", sa.String(16)),  # how it differs from the reports
    sa.Column("polled_at", sa.BigInteger),
    sa.Column("polls", sa.BigInteger, nullable=False),
    sa.Column("poll_due_at", sa.BigInteger, nullable=False),
    sa.Column("poll_reserved", sa.Boolean, nullable=False),
    sa.Column("not_found_since", sa.BigInteger),
    sa.Column("started_at", sa.BigInteger),  # as CodeArts has it
    sa.Column("running_at", sa.BigInteger),  # when CodeArts last answered that it runs
    sa.Column("listed_at", sa.BigInteger),  # when a list of its job was requested that shows it finished
    sa.Column("listed_result", sa.String(64)),
    # its record-info
    sa.Column("described_at", sa.BigInteger),
    sa.Column("describe_attempts", sa.BigInteger, nullable=False),
    sa.Column("describe_due_at", sa.BigInteger, nullable=False),
    sa.Column("record", sa.JSON(none_as_null=True)),
    sa.Column("record_missing", sa.Boolean, nullable=False, server_default=sa.false()),  # as record-info last answered
    sa.Column("metadata_mismatch", sa.Text),
    # its runs at TestNod
    sa.Column("route", sa.String(128), nullable=False),  # empty until its run parameters are chosen
    sa.Column("run_parameters", sa.JSON(none_as_null=True)),
    sa.Column("branch", sa.Text),  # of the run parameters, for searches
    sa.Column("commit", sa.Text),
    sa.Column("blocked_reason", sa.Text),
    sa.Column("blocked_quietly", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("finalize_attempts", sa.BigInteger, nullable=False),
    sa.Column("finalize_due_at", sa.BigInteger, nullable=False),
    sa.Column("finalize_failing_since", sa.BigInteger),
    sa.Column("finalized_at", sa.BigInteger),
    sa.Column("confirm_until", sa.BigInteger),
    sa.Column("confirm_due_at", sa.BigInteger, nullable=False),
    sa.Column("confirm_attempts", sa.BigInteger, nullable=False),
    sa.Column("code_check", sa.JSON(none_as_null=True)),  # null: no code check so far
    sa.Column("finalize_hold_since", sa.BigInteger),
    sa.Column("outage_us_at_hold", sa.BigInteger, nullable=False),
    # its mirror at CodeArts
    sa.Column("mirror", sa.Text),
    sa.Column("mirror_compared_at", sa.BigInteger),
    sa.Column("mirror_due_at", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("stuck_reason", sa.Text),
    sa.Column("last_error", sa.Text),
    sa.UniqueConstraint("source", "key"),
)
_partial_index("ix_builds_due", builds.c.route, builds.c.due_at, where="due_at IS NOT NULL")
_partial_index("ix_builds_waiting_on", builds.c.waiting_on, builds.c.id, where="waiting_on IS NOT NULL")
_partial_index("ix_builds_stuck_reason", builds.c.id, where="stuck_reason IS NOT NULL")
_partial_index("ix_builds_blocked_reason", builds.c.id, where="blocked_reason IS NOT NULL")
_partial_index("ix_builds_result_mismatch", builds.c.ended_at, where="result_mismatch IS NOT NULL")
_partial_index("ix_builds_mirror_differs", builds.c.id, where="mirror <> 'agrees'")
sa.Index("ix_builds_job_id", builds.c.job_id, builds.c.id)
sa.Index("ix_builds_state", builds.c.state, builds.c.id)
sa.Index("ix_builds_route", builds.c.route, builds.c.id)
_partial_index("ix_builds_branch", builds.c.branch, builds.c.id, where='"branch" IS NOT NULL')
_partial_index("ix_builds_commit", builds.c.commit, builds.c.id, where='"commit" IS NOT NULL')
# Unfinished builds are few among all builds of their job or route.
_partial_index("ix_builds_unfinished_job", builds.c.job_id, builds.c.state, builds.c.id, where="state <> 'finalized'")
_partial_index("ix_builds_unfinished_route", builds.c.route, builds.c.state, builds.c.id, where="state <> 'finalized'")
UNFINISHED_BUILD = builds.c.state != sa.literal_column("'finalized'")
"""The condition of these indexes, literally: PostgreSQL's plans for prepared statements cannot use them otherwise."""

reports = sa.Table(
    "reports",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("build_id", sa.BigInteger, sa.ForeignKey("builds.id"), nullable=False),
    sa.Column("dedupe_key", sa.LargeBinary(32), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),  # upload, or generated by the bridge
    sa.Column("name", sa.String(NAME_LENGTH), nullable=False),  # escaped and shortened
    sa.Column("node_id", sa.String(32), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),  # as received
    sa.Column("sent_size", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("received_sha256", sa.String(64), nullable=False),
    sa.Column("sent_sha256", sa.String(64), nullable=False),
    sa.Column("suites", sa.BigInteger, nullable=False),
    sa.Column("tests", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.BigInteger, nullable=False),
    sa.Column("errors", sa.BigInteger, nullable=False),
    sa.Column("skipped", sa.BigInteger, nullable=False),
    sa.Column("flaky", sa.BigInteger, nullable=False),
    sa.Column("suite_errors", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("disabled", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("notes", sa.JSON, nullable=False),
    sa.Column("highlights", sa.JSON(none_as_null=True)),  # first failures and flaky tests; null: not determined
    sa.Column("accepted_at", sa.BigInteger, nullable=False),
    sa.Column("caller", sa.String(128), nullable=False),
    sa.Column("caller_routes", sa.JSON(none_as_null=True)),  # null: any
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("body", sa.LargeBinary),  # of small reports, until they are delivered
    sa.Column("blob", sa.String(128)),  # of other reports: the key in the spool
    sa.Column("failure", sa.Text),  # why the file of a submission never came
    sa.Column("trace_context", sa.String(600)),  # W3C traceparent and tracestate of its upload; null: not traced
    sa.UniqueConstraint("build_id", "dedupe_key"),
)

sa.Index("ix_reports_caller", reports.c.caller, reports.c.build_id)
_partial_index("ix_reports_with_bytes", reports.c.id, where="body IS NOT NULL OR blob IS NOT NULL")
_partial_index("ix_reports_blob", reports.c.blob, where="blob IS NOT NULL")

report_cases = sa.Table(  # apart from `reports`, of which charts read many rows
    "report_cases",
    metadata,
    sa.Column("report_id", sa.BigInteger, sa.ForeignKey("reports.id", ondelete="CASCADE"), primary_key=True,
              autoincrement=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),  # domain/junit/case_digest.py
)  # fmt: skip

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("build_id", sa.BigInteger, sa.ForeignKey("builds.id"), nullable=False),
    sa.Column("report_id", sa.BigInteger, sa.ForeignKey("reports.id"), nullable=False),
    sa.Column("target", sa.String(16), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("pending_since", sa.BigInteger, nullable=False),
    sa.Column("first_failure_at", sa.BigInteger),
    sa.Column("outage_us_at_first_failure", sa.BigInteger, nullable=False),
    sa.Column("rejected_since", sa.BigInteger),
    sa.Column("blocked_since", sa.BigInteger),
    sa.Column("attempts", sa.BigInteger, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("send_alone", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("delivered_at", sa.BigInteger),
    sa.Column("last_error", sa.Text),
    sa.Column("unread", sa.Text),
    sa.Column("unread_since", sa.BigInteger),
    sa.Column("unread_at", sa.BigInteger),
    sa.UniqueConstraint("report_id", "target"),
)
sa.Index("ix_deliveries_build_id", deliveries.c.build_id)
_partial_index("ix_deliveries_unfinished", deliveries.c.state, deliveries.c.target, where="state <> 'delivered'")
UNFINISHED_DELIVERY = deliveries.c.state != sa.literal_column("'delivered'")
"""The condition of this index, literally."""

registrations = sa.Table(
    "registrations",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("build_id", sa.BigInteger, sa.ForeignKey("builds.id"), nullable=False),
    sa.Column("delivery_id", sa.BigInteger, sa.ForeignKey("deliveries.id"), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("fencing_token", sa.BigInteger, nullable=False),
    sa.Column("requested_at", sa.BigInteger, nullable=False),
    sa.Column("test_run_id", sa.String(64)),
    sa.Column("upload_id", sa.String(64)),
    sa.Column("presigned_url", sa.Text),  # a secret: deleted when it is no longer needed
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("registered_at", sa.BigInteger),
    sa.Column("stored_at", sa.BigInteger),
    sa.Column("attempts", sa.BigInteger, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("failing_since", sa.BigInteger),
    sa.Column("put_outcome_unknown", sa.Boolean, nullable=False),
    sa.Column("failure", sa.Text),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("1")),
)
sa.Index("ix_registrations_build_id", registrations.c.build_id)
# To delete a delivery, the database looks for its registrations.
sa.Index("ix_registrations_delivery_id", registrations.c.delivery_id)

attempts = sa.Table(  # calls for deliveries and runs, for people: the newest ones of each
    "attempts",
    metadata,
    sa.Column("build_id", sa.BigInteger, sa.ForeignKey("builds.id"), primary_key=True),
    sa.Column("delivery_id", sa.BigInteger, primary_key=True),  # 0: for the run of the build
    sa.Column("slot", sa.BigInteger, primary_key=True),  # number modulo 20: a new attempt replaces the oldest one
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("call", sa.String(16), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("duration_us", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("status", sa.BigInteger),
    sa.Column("reason", sa.Text),
    sqlite_with_rowid=False,
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("build_id", sa.BigInteger, sa.ForeignKey("builds.id"), nullable=False),
    sa.Column("test_run_id", sa.String(64), nullable=False),
    sa.Column("test_run_url", sa.Text, nullable=False),
    sa.Column("opened_at", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(32)),
    sa.Column("finalized_at", sa.BigInteger),
    sa.Column(
        "project_id", sa.String(64), nullable=False, server_default=sa.text("''")
    ),  # empty: not in TestNod's response
    sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    sa.UniqueConstraint("build_id", "test_run_id"),
)

rejections = sa.Table(
    "rejections",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("key", sa.String(128), nullable=False),  # of the build, which may have no row
    sa.Column("job_id", sa.String(32)),
    sa.Column("rejected_at", sa.BigInteger, nullable=False),
    sa.Column("name", sa.String(NAME_LENGTH), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("code", sa.String(32), nullable=False),
    sa.Column("caller", sa.String(128), nullable=False),  # empty: not proven
    sa.Column("is_foreign", sa.Boolean, nullable=False, server_default=sa.false()),  # no route of it takes the job
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    # a file that came whole; null if none did
    sa.Column("route", sa.String(128)),  # for which it was meant; empty: none
    sa.Column("node_id", sa.String(32)),
    sa.Column("raw_name", sa.LargeBinary),  # UTF-8, or the bytes as received
    sa.Column("size", sa.BigInteger),
    sa.Column("sha256", sa.String(64)),
    sa.Column("wire_size", sa.BigInteger),  # as received: differs from size and sha256 if the file was compressed
    sa.Column("wire_sha256", sa.String(64)),
    sa.Column("file_key", sa.LargeBinary(32)),
    sa.Column("upload_metadata", sa.JSON(none_as_null=True)),
    sa.Column("caller_routes", sa.JSON(none_as_null=True)),  # null: any
    sa.Column("body", sa.LargeBinary),  # of small files, while they are kept
    sa.Column("blob", sa.String(128)),  # of other files: the key in the spool
    sa.Column("kept_until", sa.BigInteger),  # null: there are no bytes
    sa.Column("sent_at", sa.BigInteger),  # when it was accepted from the quarantine
)
sa.Index("ix_rejections_file_key", rejections.c.source, rejections.c.key, rejections.c.file_key, unique=True)
sa.Index("ix_rejections_rejected_at", rejections.c.rejected_at)
sa.Index("ix_rejections_job_id", rejections.c.job_id, rejections.c.id)
_partial_index("ix_rejections_route", rejections.c.route, rejections.c.id, where="route IS NOT NULL")
_partial_index("ix_rejections_unproven", rejections.c.address, rejections.c.id, where="caller = ''")
_partial_index("ix_rejections_foreign", rejections.c.caller, rejections.c.id, where="is_foreign")
_partial_index(
    "ix_rejections_kept",
    rejections.c.route,
    rejections.c.caller,
    rejections.c.kept_until,
    rejections.c.size,
    where="kept_until IS NOT NULL",
)
_partial_index("ix_rejections_blob", rejections.c.blob, where="blob IS NOT NULL")

submissions = sa.Table(  # uploads that were registered through TestNod's API as the bridge serves it
    "submissions",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("build_id", sa.BigInteger, sa.ForeignKey("builds.id"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),  # of the signature in its URL
    sa.Column("caller", sa.String(128), nullable=False),
    sa.Column("caller_routes", sa.JSON(none_as_null=True)),  # null: any
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("registered_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),  # of its URL
    sa.Column("given_up_at", sa.BigInteger, nullable=False),  # later: a PUT may be arriving
    sa.Column("file_sha256", sa.String(64)),  # as received; null: not stored
)
sa.Index("ix_submissions_build_id", submissions.c.build_id)
_partial_index("ix_submissions_open", submissions.c.given_up_at, where="state = 'open'")

circuit_breakers = sa.Table(
    "circuit_breakers",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("failures", sa.BigInteger, nullable=False),
    sa.Column("opened_at", sa.BigInteger),
    sa.Column("reason", sa.Text),
    sa.Column("probes", sa.BigInteger, nullable=False),
    sa.Column("probe_at", sa.BigInteger),
    sa.Column("total_outage_us", sa.BigInteger, nullable=False),  # without the last outage
    sa.Column("outage_began_at", sa.BigInteger),  # the last outage that has ended
    sa.Column("outage_ended_at", sa.BigInteger),
    sa.Column("probed_at", sa.BigInteger),
    sa.Column("first_failure_at", sa.BigInteger),
    sa.Column("succeeded_at", sa.BigInteger),
    sa.Column("builds", sa.JSON(none_as_null=True)),  # ids of builds whose calls failed
    sa.Column("accepted_token", sa.String(32)),  # digest of the token of the last success
    sa.Column("rejected_token", sa.String(32)),  # digest of the last token that was rejected
)

request_rates = sa.Table(
    "request_rates",
    metadata,
    sa.Column("account", sa.String(32), primary_key=True),  # digest of the credentials
    sa.Column("api", sa.String(32), primary_key=True),
    sa.Column("rate", sa.JSON, nullable=False),
)

asked_questions = sa.Table(  # by gateways that share the ledger, so that none is asked twice
    "asked_questions",
    metadata,
    sa.Column("subject", sa.String(80), primary_key=True),  # job:… or project:…
    sa.Column("asked_at", sa.BigInteger, nullable=False),
)

signature_uses = sa.Table(
    "signature_uses",
    metadata,
    sa.Column("signature_key", sa.LargeBinary(32), primary_key=True),  # SHA-256 of access key and signature
    sa.Column("body_sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("kept_until", sa.BigInteger, nullable=False),
)
sa.Index("ix_signature_uses_kept_until", signature_uses.c.kept_until)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("person", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("proof", sa.Text, nullable=False, server_default=sa.text("''")),  # of the person's name; empty: not noted
)
"""What operators did. Rows are only ever added, and never deleted."""

moves = sa.Table(
    "moves",
    metadata,
    sa.Column("number", Id, primary_key=True),
    sa.Column("id", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("peer", sa.Text, nullable=False),  # the other ledger, for display
    sa.Column("began_at", sa.BigInteger, nullable=False),
    sa.Column("last_report_id", sa.BigInteger, nullable=False),
)
"""Moves of the whole ledger from or to another database; the last row counts."""

notice_events = sa.Table(  # in the order in which they happened, until they are grouped: for seconds
    "notice_events",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("happened_at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("route", sa.String(128), nullable=False),  # empty: none
    sa.Column("targets", sa.JSON, nullable=False),  # ids
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),  # domain/notices.py: EventDetail
)

notices = sa.Table(  # one row for each target, kind and route
    "notices",
    metadata,
    sa.Column("target", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("route", sa.String(128), primary_key=True),
    sa.Column("collected", sa.JSON(none_as_null=True)),  # events that no notice has; null: none
    sa.Column("sealed", sa.JSON(none_as_null=True)),  # the notice that is being sent: every attempt sends the same
    sa.Column("due_at", sa.BigInteger),  # null: nothing to send
    sa.Column("sent_at", sa.BigInteger),  # the last notice
    sa.Column("lease_until", sa.BigInteger),
    sa.Column("fencing_token", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

notice_targets = sa.Table(  # how the targets answer; rows exist for those that got a notice
    "notice_targets",
    metadata,
    sa.Column("target", sa.String(32), primary_key=True),
    sa.Column("label", sa.Text),  # as the settings of the gateway name it that sent last
    sa.Column("slot_at", sa.BigInteger, nullable=False),  # the next slot of its rate limit
    sa.Column("due_at", sa.BigInteger, nullable=False),  # it is left alone until then
    sa.Column("failures", sa.BigInteger, nullable=False),  # since the last success
    sa.Column("failing_since", sa.BigInteger),
    sa.Column("last_error", sa.Text),
)

notice_conditions = sa.Table(  # states that last and that were announced, so that no other gateway announces them
    "notice_conditions",
    metadata,
    sa.Column("subject", sa.String(255), primary_key=True),
    sa.Column("announced_at", sa.BigInteger, nullable=False),
    sa.Column("began_at", sa.BigInteger, nullable=False),
)

admin_sessions = sa.Table(
    "admin_sessions",
    metadata,
    sa.Column("session_key", sa.LargeBinary(32), primary_key=True),  # SHA-256 of the cookie
    sa.Column("token_proof", sa.LargeBinary(32), nullable=False),  # of the token it began with, keyed with the cookie
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
)

admin_secrets = sa.Table(
    "admin_secrets",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("value", sa.LargeBinary(32), nullable=False),  # random
)
"""Random keys that the gateways of a ledger share: what one of them puts into a form, another one verifies."""
