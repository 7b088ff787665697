"""The mirror: what is owed to CodeArts' own report API too, in which requests, and whether both sides count alike.

It knows no call and no ledger. Nothing here touches what is owed to TestNod.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridge.domain.build import SECOND, Build, Delivery, DeliveryState, DeliveryTarget, Report
from bridge.domain.code_check.suite import SUITE
from bridge.domain.outcomes import (
    CorruptBody,
    CredentialsRejected,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    Rejected,
    SpoolUnreadable,
    Throttled,
)

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Of files that share a request: far below what CodeArts takes, so that one lost answer doubles little."""

MAX_REQUEST_FILES = 20
"""Likewise: whatever one bad file spoils is sent again file by file."""

COMPARE_AFTER = 2 * SECOND  # CodeArts may count a report after it has answered
COMPARE_AGAIN = 5 * SECOND  # at first; then half of the time since the last upload

STAGES_PATIENCE = 60 * SECOND  # as long as a report waits for record-info before it goes to TestNod without it
PASSING = frozenset({401, 408, 425, 429})  # statuses that ask for another try

AGREES = "agrees"


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorUploaded:
    """CodeArts took all files of a request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TooLargeToSign:
    """A signed call may not have a body as large as this report."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorRejected:
    """CodeArts refused the request itself, with an error code of its own: the same upload would be refused again."""

    status: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportNode:
    """The node that reports are uploaded to; `unproven` if CodeArts could not be asked which nodes it has."""

    node_id: str
    unproven: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportStage:
    """One action of a build, as full-stages tells of it."""

    node_id: str
    running: bool
    sequence: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportStages:
    """full-stages answered."""

    stages: tuple[ReportStage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TestTotals:
    """How many tests were counted, and how many of them did not simply pass (`others` were skipped)."""

    total: int = 0
    failures: int = 0
    errors: int = 0
    others: int = 0

    @property
    def success(self) -> int:
        return self.total - self.failures - self.errors - self.others

    def said(self) -> str:
        return f"{self.total} tests, {self.failures} failed, {self.errors} broken and {self.others} skipped"


CallFailure = NoSuchBuild | CredentialsRejected | Throttled | Rejected | NotSent | OutcomeUnknown
UploadOutcome = MirrorUploaded | TooLargeToSign | CorruptBody | SpoolUnreadable | MirrorRejected | CallFailure
StagesOutcome = ReportStages | CallFailure
SummaryOutcome = TestTotals | CallFailure


def mirrored(build: Build) -> list[Delivery]:
    """Return the deliveries to CodeArts, whatever has become of them."""
    return [delivery for delivery in build.deliveries.values() if delivery.target is DeliveryTarget.CODEARTS]


def not_owed_yet(build: Build, route: str) -> list[Report]:
    """Return the reports that a `route` with a mirror owes to CodeArts from now on.

    Those whose bytes have gone came before the mirror; a caller of another route has none. What CodeArts Check said is
    at CodeArts already.
    """
    known = {delivery.report_id for delivery in mirrored(build)}
    return [
        report
        for report in build.reports.values()
        if report.id not in known
        and report.has_bytes
        and report.node_id != SUITE
        and (report.caller_routes is None or route in report.caller_routes)
    ]


def new_delivery(report: Report, now: int) -> Delivery:
    """Return what is owed of a report from `now` on; the ledger gives it its id."""
    target, state = DeliveryTarget.CODEARTS, DeliveryState.PENDING
    return Delivery(id=0, report_id=report.id, target=target, state=state, pending_since=now, due_at=now)


def requests_of(build: Build, due: Iterable[Delivery]) -> list[tuple[int, ...]]:
    """Return the ids of deliveries that share a request each: small ones of one node, in their order.

    One that a shared request was refused with goes alone.
    """
    requests: list[list[int]] = []
    open_of: dict[str, tuple[list[int], int]] = {}
    for delivery in due:
        report = build.reports[delivery.report_id]
        request, size = open_of.get(report.node_id, ([], 0))
        if delivery.send_alone or report.sent_size > MAX_REQUEST_BYTES:
            requests.append([delivery.id])
        elif request and len(request) < MAX_REQUEST_FILES and size + report.sent_size <= MAX_REQUEST_BYTES:
            request.append(delivery.id)
            open_of[report.node_id] = (request, size + report.sent_size)
        else:
            requests.append([delivery.id])
            open_of[report.node_id] = (requests[-1], report.sent_size)
    return [tuple(request) for request in requests]


def node_for(sent: str, stages: Sequence[ReportStage]) -> str:
    """Return the node that reports of the node `sent` go to: itself where CodeArts knows it.

    Else the only one, the one that runs, or the last one; `sent` where CodeArts knows none at all.
    """
    if not stages or any(stage.node_id == sent for stage in stages):
        return sent
    running = [stage for stage in stages if stage.running]
    return max(running or stages, key=lambda stage: stage.sequence).node_id


def node_without_stages(sent: str, outcome: CallFailure, waited_us: int) -> ReportNode | None:
    """Return the node `sent` if full-stages is of no use for a report that has waited for `waited_us`.

    None: CodeArts is to be asked again, because it is away, busy or refuses the credentials, and STAGES_PATIENCE is
    not over. Any other answer, such as 404 or one that cannot be read, would come again.
    """
    if not _may_pass(outcome):
        return ReportNode(node_id=sent)
    return ReportNode(node_id=sent, unproven=True) if waited_us >= STAGES_PATIENCE else None


def _may_pass(outcome: CallFailure) -> bool:
    """Return whether asking again may bring another answer."""
    match outcome:
        case NoSuchBuild():
            return False
        case Rejected(status=status) | OutcomeUnknown(status=int(status)):
            return status in PASSING or status >= 500
    return True


def last_mirrored_at(build: Build) -> int | None:
    """Return when CodeArts took the last report of `build`; None while some are owed to it, or where none arrived."""
    deliveries = mirrored(build)
    if any(delivery.state is DeliveryState.PENDING for delivery in deliveries):
        return None
    return max((delivery.delivered_at for delivery in deliveries if delivery.delivered_at), default=None)


def compare_due_at(build: Build, patience_us: int) -> int | None:
    """Return when the totals of both sides are to be compared (again); None: never as things are.

    A difference is looked at again for `patience_us` after the last upload: CodeArts may still be counting.
    """
    last = last_mirrored_at(build)
    if last is None:
        return None
    compared = build.mirror_compared_at is not None and build.mirror_compared_at >= last
    if compared and (build.mirror == AGREES or build.mirror_due_at > last + patience_us):
        return None
    return max(last + COMPARE_AFTER, build.mirror_due_at)
