"""The mirror: upload reports to CodeArts' own report API too, and compare what both sides count.

Types, the rules when a call is due, and what each outcome changes. The mirror never delays a delivery to TestNod. A
request whose response was lost is sent again, and CodeArts may then count its reports twice.
"""

from collections.abc import Iterable, Sequence

from bridge.domain import outcomes
from bridge.domain.build import Build, Delivery, DeliveryState, DeliveryTarget, Report
from bridge.domain.changes import AddDelivery, Change, set_build, set_delivery
from bridge.domain.circuit_breaker import MIRROR, HealthSignal
from bridge.domain.instants import MINUTE, SECOND, Duration, Instant, after, between
from bridge.domain.lifecycle.breaker_signals import Signals, failure_signal
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.unreadable_body import retry_unread
from bridge.domain.policy import Policy
from bridge.domain.retry import next_attempt_at, start_give_up_clock
from bridge.domain.steps import Apply, CompareMirror, UploadToMirror, UpstreamCall
from bridge.values import dataclass

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Of files that share a request: far below the limit of CodeArts, so that a lost response doubles little."""

MAX_REQUEST_FILES = 20
"""That share a request: what one faulty file spoils is sent again file by file."""

COMPARE_AFTER = Duration(2 * SECOND)  # CodeArts may count a report after it has answered
COMPARE_AGAIN = Duration(5 * SECOND)  # at first; then half of the time since the last upload

STAGES_TIMEOUT = MINUTE  # as long as a report waits for record-info before it is sent to TestNod without it
RETRIED_STATUSES = frozenset({401, 408, 425, 429})

AGREES = "agrees"


# -- outcomes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorUploaded:
    """CodeArts took all files of a request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TooLargeToSign:
    """A signed call cannot have a body as large as this report."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorRejected:
    """CodeArts rejected the request with an error code of its own: it would reject the same upload again."""

    status: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportNode:
    """The node that reports are uploaded to; `unproven`: the nodes of CodeArts could not be read."""

    node_id: str
    unproven: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportStage:
    """One action of a build in full-stages."""

    node_id: str
    running: bool
    sequence: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportStages:
    """full-stages answered."""

    stages: tuple[ReportStage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TestTotals:
    """How many tests there are, and how many of them did not pass (`others` were skipped)."""

    total: int = 0
    failures: int = 0
    errors: int = 0
    others: int = 0

    @property
    def success(self) -> int:
        return self.total - self.failures - self.errors - self.others

    def text(self) -> str:
        """Return the totals as a clause."""
        return f"{self.total} tests, {self.failures} failed, {self.errors} broken and {self.others} skipped"


def totals_with(totals: TestTotals, reports: Iterable[Report]) -> TestTotals:
    """Return the totals after these reports are counted too."""
    added = list(reports)
    return TestTotals(
        total=totals.total + sum(report.tests for report in added),
        failures=totals.failures + sum(report.failures for report in added),
        errors=totals.errors + sum(report.errors for report in added),
        others=totals.others + sum(report.skipped for report in added),
    )


CallFailure = (
    outcomes.NoSuchBuild
    | outcomes.CredentialsRejected
    | outcomes.Throttled
    | outcomes.Rejected
    | outcomes.NotSent
    | outcomes.OutcomeUnknown
)
UploadOutcome = (
    MirrorUploaded | TooLargeToSign | outcomes.CorruptBody | outcomes.SpoolUnreadable | MirrorRejected | CallFailure
)
StagesOutcome = ReportStages | CallFailure
SummaryOutcome = TestTotals | CallFailure


# -- when a call is due --------------------------------------------------------------------------------------------


def mirror_deliveries(build: Build) -> list[Delivery]:
    """Return the deliveries to CodeArts, whatever their state."""
    return build.deliveries.where(_is_mirrored)


def _is_mirrored(delivery: Delivery) -> bool:
    return delivery.target is DeliveryTarget.CODEARTS


def add_mirror_deliveries(context: PlanContext) -> Apply | None:
    """Return a delivery to CodeArts for each report that has none, before any register: later the bytes may be gone."""
    if context.route is None or not context.mirrors or not context.require_record():
        return None
    reports = reports_to_mirror(context.build, context.route)
    new = tuple(AddDelivery(_new_delivery(report, context.now)) for report in reports)
    return Apply("mirror_deliveries_added", new) if new else None


def reports_to_mirror(build: Build, route: str) -> list[Report]:
    """Return the reports for which a `route` with a mirror has to add a delivery.

    Reports whose bytes are gone are older than the mirror. Callers that may not use the route are left out, and so are
    generated reports: CodeArts has their content.
    """
    known = frozenset[int]().union(*build.deliveries.by_page(_mirrored_reports))
    wanted = frozenset[int]().union(*build.reports.by_page(_reports_for_mirror, route))
    return [build.reports[report_id] for report_id in sorted(wanted - known)]


def _mirrored_reports(deliveries: Iterable[Delivery]) -> frozenset[int]:
    return frozenset(delivery.report_id for delivery in deliveries if _is_mirrored(delivery))


def _reports_for_mirror(reports: Iterable[Report], route: str) -> frozenset[int]:
    return frozenset(each.id for each in reports if each.has_bytes and not each.generated and each.may_go_to(route))


def _new_delivery(report: Report, now: Instant) -> Delivery:
    target, state = DeliveryTarget.CODEARTS, DeliveryState.PENDING
    return Delivery(id=0, report_id=report.id, target=target, state=state, pending_since=now, due_at=now)


def give_up_mirror_deliveries(context: PlanContext) -> Apply | None:
    """Return the death of deliveries that failed, or were blocked by the settings, for too long."""
    pending = context.pending_to(DeliveryTarget.CODEARTS)
    dead = [(delivery, reason) for delivery in pending if (reason := _death(context, delivery))]
    changes = (set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason) for delivery, reason in dead)
    return Apply("delivery_died", tuple(changes)) if dead else None


def due_mirror_calls(context: PlanContext) -> list[UpstreamCall]:
    """Return the requests to CodeArts' report API that are due now; each runs in the background."""
    due = [
        delivery
        for delivery in context.pending_to(DeliveryTarget.CODEARTS)
        if delivery.blocked_since is None and context.wait_until(delivery.due_at)
    ]
    if due and _require_mirror(context):
        free = 1 if MIRROR in context.breakers.probing else context.policy.concurrency_per_build
        return [UploadToMirror(ids) for ids in group_into_requests(context.build, due)[:free]]
    compare_at = compare_due_at(context.build, context.policy.confirm_timeout)
    compare = context.mirrors and context.wait_until(compare_at)
    # A comparison shows nothing of uploads, so it is never the probe of their breaker.
    return [CompareMirror()] if compare and not context.breakers.is_open(MIRROR) else []


def _death(context: PlanContext, delivery: Delivery) -> str | None:
    if delivery.blocked_since is not None:
        return context.give_up_blocked(delivery)
    return context.give_up_reason(delivery, MIRROR)


def _require_mirror(context: PlanContext) -> bool:
    """Return whether the breaker of the mirror lets calls pass; a build never waits on it, but may take its probe."""
    breaker = context.breakers.open_breaker(MIRROR)
    if breaker is not None and breaker.probe_at is not None and context.wait_until(breaker.probe_at):
        context.probe = context.probe or MIRROR
    return breaker is None


def group_into_requests(build: Build, due: Iterable[Delivery]) -> list[tuple[int, ...]]:
    """Return the ids of deliveries by request: small reports of one node share one, in their order.

    A delivery whose shared request was rejected is sent alone.
    """
    requests: list[list[int]] = []
    open_of: dict[str, tuple[list[int], int]] = {}  # by node, the request that takes more files, and its size
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
    """Return the node that reports of the node `sent` go to: `sent` itself if CodeArts has it.

    Otherwise the running one, the last if several run or none does, or `sent` if there are no stages.
    """
    if not stages or any(stage.node_id == sent for stage in stages):
        return sent
    running = [stage for stage in stages if stage.running]
    return max(running or stages, key=lambda stage: stage.sequence).node_id


def node_without_stages(sent: str, outcome: CallFailure, waited: Duration) -> ReportNode | None:
    """Return the node `sent` if full-stages cannot help a report that has `waited`.

    None: full-stages must be asked again, because CodeArts is away, throttling or rejects the credentials, and
    STAGES_TIMEOUT is not over. Other answers, such as 404, would come again.
    """
    if not _may_pass(outcome):
        return ReportNode(node_id=sent)
    return ReportNode(node_id=sent, unproven=True) if waited >= STAGES_TIMEOUT else None


def _may_pass(outcome: CallFailure) -> bool:
    """Return whether a further call may have another outcome."""
    match outcome:
        case outcomes.NoSuchBuild():
            return False
        case outcomes.Rejected(status=status) | outcomes.OutcomeUnknown(status=int(status)):
            return status in RETRIED_STATUSES or status >= 500
    return True


def last_mirrored_at(build: Build) -> Instant | None:
    """Return when CodeArts took the last report of `build`; None while some are pending, or if none arrived."""
    if build.pending(DeliveryTarget.CODEARTS):
        return None
    return max((each.delivered_at for each in mirror_deliveries(build) if each.delivered_at), default=None)


def compare_due_at(build: Build, patience: Duration) -> Instant | None:
    """Return when the totals of both sides are to be compared (again); None if they are not.

    A difference is compared again for `patience` after the last upload: CodeArts may still be counting.
    """
    last = last_mirrored_at(build)
    if last is None:
        return None
    compared = build.mirror_compared_at is not None and build.mirror_compared_at >= last
    if compared and (build.mirror == AGREES or build.mirror_due_at > after(last, patience)):
        return None
    return max(after(last, COMPARE_AFTER), build.mirror_due_at)


# -- what an outcome changes ---------------------------------------------------------------------------------------


def reserve_deliveries(deliveries: Iterable[Delivery], until: Instant) -> tuple[Change, ...]:
    """Return the changes that keep others from sending these deliveries before `until`."""
    return tuple(set_delivery(delivery, due_at=until) for delivery in deliveries)


def defer_comparison(until: Instant) -> tuple[Change, ...]:
    """Return the changes that keep others from comparing before `until`."""
    return (set_build(mirror_due_at=until),)


def after_upload(
    deliveries: Sequence[Delivery], outcome: UploadOutcome, now: Instant, policy: Policy, total_outage_us: Duration
) -> tuple[Change, ...]:
    """Return what the outcome of one request changes of its deliveries."""
    return tuple(_after(each, outcome, now, policy, total_outage_us, shared=len(deliveries) > 1) for each in deliveries)


def _after(
    delivery: Delivery, outcome: UploadOutcome, now: Instant, policy: Policy, total_outage_us: Duration, *, shared: bool
) -> Change:
    if isinstance(outcome, MirrorUploaded):
        return set_delivery(delivery, state=DeliveryState.DELIVERED, delivered_at=now, last_error=None)
    rejected = isinstance(outcome, TooLargeToSign | outcomes.CorruptBody | outcomes.SpoolUnreadable | MirrorRejected)
    if rejected and shared:  # because of one of them, and the answer does not name it
        return set_delivery(delivery, send_alone=True, due_at=now, last_error=outcome.message)
    if isinstance(outcome, outcomes.SpoolUnreadable):
        return retry_unread(delivery, outcome, now, policy)
    not_found = isinstance(outcome, outcomes.NoSuchBuild) and _has_failed_for(delivery, now, policy.not_found_timeout)
    if rejected or not_found:
        return set_delivery(delivery, state=DeliveryState.DEAD, last_error=outcome.message)
    attempts = delivery.attempts + 1
    at = next_attempt_at(now, policy, attempts, f"mirror/{delivery.id}", outcome)
    retry = {"attempts": attempts, "due_at": at, **start_give_up_clock(delivery, now, total_outage_us)}
    if isinstance(outcome, outcomes.Rejected) and shared:  # perhaps by a firewall in front, because of one of them
        retry["send_alone"] = True
    return set_delivery(delivery, last_error=outcome.message, **retry)


def _has_failed_for(delivery: Delivery, now: Instant, duration: Duration) -> bool:
    return delivery.first_failure_at is not None and between(delivery.first_failure_at, now) >= duration


def after_summary(
    build: Build, outcome: SummaryOutcome, ours: TestTotals, now: Instant, policy: Policy
) -> tuple[Change, ...]:
    """Return what CodeArts' report summary changes; `ours` are the totals of the delivered reports."""
    since_last = between(last_mirrored_at(build) or now, now)
    again = after(now, Duration(min(max(since_last // 2, COMPARE_AGAIN), policy.retry_max_delay)))
    if not isinstance(outcome, TestTotals):
        if since_last < policy.confirm_timeout:
            return (set_build(mirror_due_at=again),)
        return (set_build(mirror=f"is not known: {outcome.message}", mirror_compared_at=now, mirror_due_at=again),)
    result = AGREES if outcome == ours else f"differs: CodeArts counts {outcome.text()}, the bridge {ours.text()}"
    return (set_build(mirror=result, mirror_compared_at=now, mirror_due_at=again),)


def of_mirror(outcome: UploadOutcome) -> Signals:
    """Return what an upload shows of the report API. It has a breaker of its own: polls go on while it is away."""
    match outcome:
        case TooLargeToSign() | outcomes.CorruptBody() | outcomes.SpoolUnreadable():
            return ()
        case outcomes.CredentialsRejected(message=message):
            return ((MIRROR, HealthSignal.TRIP, f"CodeArts rejects the bridge's credentials: {message}"),)
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return ((MIRROR, failure_signal(outcome), outcome.message),)
        case outcomes.Throttled(message=message) | outcomes.Rejected(message=message):
            return ((MIRROR, HealthSignal.UNEXPECTED, message),)
    return ((MIRROR, HealthSignal.SUCCESS, ""),)
