"""The API's objects, exactly as contract.md names their fields.

They are shapes: what fills them stands in build_view.py.
"""

from typing import TypedDict


class DeliveryView(TypedDict):
    """A report owed to one target."""

    id: int
    target: str
    state: str
    attempts: int
    last_error: str | None
    next_try_at: str | None


class ReportView(TypedDict):
    """One JUnit file; `time` is in seconds."""

    id: int
    name: str
    node_id: str
    size: int
    sent_size: int
    received_sha256: str
    sent_sha256: str
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int
    time: float
    notes: list[str]
    accepted_at: str
    caller: str
    deliveries: list[DeliveryView]


class RunView(TypedDict):
    """A TestNod test run, and how many of its registrations nobody can name."""

    test_run_id: str
    test_run_url: str
    status: str | None
    opened_at: str
    finalized_at: str | None
    lost_registrations: int


class QualityView(TypedDict):
    """How far the asking of CodeArts Check is; `summary` is what it found, or why nothing came (so far)."""

    state: str
    until: str
    attempts: int
    answered_at: str | None
    summary: str | None


class TestnodView(TypedDict):
    """What the build is at TestNod; no build_id until it is pinned."""

    build_id: str | None
    runs: list[RunView]


class RefusalView(TypedDict):
    """A file, or a whole upload (`name` empty), that was not accepted; until `kept_until` the file can be sent."""

    at: str
    name: str
    reason: str
    code: str
    caller: str
    request_id: str
    id: int
    size: int | None
    sha256: str | None
    kept_until: str | None
    sent_at: str | None


class BuildView(TypedDict):
    """One build with all that people may know of it; times are RFC 3339 UTC, null where unknown.

    One of which every upload was refused has refusals only: no id, and it was never accepted.
    """

    id: int | None
    job_id: str
    build_no: int
    state: str
    stuck: str | None
    held: str | None
    route: str | None
    build_result: str | None
    ended_by: str | None
    branch: str | None
    commit: str | None
    identity_mismatch: str | None
    accepted_at: str | None
    ended_at: str | None
    finalized_at: str | None
    next_try_at: str | None
    last_error: str | None
    mirror: str | None  # where the route mirrors: "agrees", or "differs: …"
    testnod: TestnodView
    quality: QualityView | None
    reports: list[ReportView]
    refusals: list[RefusalView]
