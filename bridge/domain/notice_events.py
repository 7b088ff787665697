"""Which facts are events for notices, and their sentences. Nothing is computed without subscriptions."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final

from bridge.domain.build import Build, BuildNo, Delivery, DeliveryState, DeliveryTarget
from bridge.domain.changes import Change, SetBuild, SetDelivery, apply
from bridge.domain.circuit_breaker import (
    ARCHIVE,
    CODEARTS,
    MIRROR,
    TESTNOD,
    CircuitBreaker,
    register_breaker,
    route_breaker,
    storage_breaker,
)
from bridge.domain.instants import DAY, MINUTE, Duration, Instant, after, between
from bridge.domain.intake import AcceptedUpload
from bridge.domain.lifecycle.build_result import mismatch_of
from bridge.domain.notices import MAX_TEXT_CHARACTERS, NO_SUBSCRIPTIONS, EventKind, NoticeEvent, Subscriptions
from bridge.domain.result_mismatch import MismatchKind
from bridge.domain.routing import Route, candidate_routes, keys_of_upload
from bridge.domain.text_format import capital, cause_and_action, clause_or_unknown, counted, rfc3339, span, were
from bridge.domain.why import NO_ACTION, WhyAnswer, WhyCase, away, subject_of, why_urgent
from bridge.values import dataclass

AWAY_FOR: Final = Duration(15 * MINUTE)
"""An upstream that has been away this long is announced. Shorter outages end by themselves."""

CERTIFICATE_DAYS: Final = (14, 3, 0)
"""A certificate is announced when it ends within so many days, once for each number."""

TARGET_NAMES: Final = {DeliveryTarget.CODEARTS: "the mirror at CodeArts", DeliveryTarget.ARCHIVE: "the archive"}
UPSTREAM_NAMES: Final = {
    TESTNOD: "TestNod",
    CODEARTS: "CodeArts",
    ARCHIVE: "The archive",
    MIRROR: "The mirror at CodeArts",
}
PARTS_OF_ROUTES: Final = {"TestNod's storage": storage_breaker(""), "TestNod's register": register_breaker("")}


def _text(what: str, action: str = "") -> str:
    text = f"{capital(what)}." if not action or action == NO_ACTION else f"{capital(what)}. {capital(action)}."
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[: MAX_TEXT_CHARACTERS - 1]}…"


# -- changes of builds -------------------------------------------------------------------------------------------


def events_of_changes(
    build: Build, changes: Sequence[Change], now: Instant, subscriptions: Subscriptions
) -> tuple[NoticeEvent, ...]:
    """Return the events of changes to `build`, which is as it was before them."""
    if not subscriptions or not any(map(_may_be_event, changes)):
        return ()
    route = build.run_parameters.route if build.run_parameters else ""
    # A change that the ledger completes (with ids of new rows) is no event, and changes no answer here.
    changed = apply(build, [change for change in changes if isinstance(change, SetBuild | SetDelivery)])
    facts = [
        *_deaths(build, changed, changes, now),
        *_stuck(build, changed, now),
        *_mismatches(build, changed),
    ]
    found = []
    for kind, text, count in facts:
        if targets := subscriptions.targets(kind, route):
            found.append(_of_build(build, kind, route, targets, text, count))
    return tuple(found)


def _may_be_event(change: Change) -> bool:
    match change:
        case SetDelivery(values=values):
            return values.get("state") is DeliveryState.DEAD
        case SetBuild(values=values):
            return values.get("stuck_reason") is not None or values.get("result_mismatch") is not None
    return False


def _of_build(
    build: Build, kind: EventKind, route: str, targets: tuple[str, ...], text: str, count: int = 1
) -> NoticeEvent:
    return NoticeEvent(
        kind=kind,
        route=route,
        targets=targets,
        text=text,
        job_id=build.job_id,
        build_no=build.build_no,
        count=count,
    )


_Fact = tuple[EventKind, str, int]


def _deaths(build: Build, changed: Build, changes: Sequence[Change], now: Instant) -> Iterator[_Fact]:
    """Yield the reports that were given up, together for each target."""
    died: dict[DeliveryTarget, list[Delivery]] = {}
    for change in changes:
        before = build.deliveries.get(change.id) if isinstance(change, SetDelivery) else None
        if before is None or before.state is DeliveryState.DEAD:
            continue
        if (delivery := changed.deliveries[before.id]).state is DeliveryState.DEAD:
            died.setdefault(delivery.target, []).append(delivery)
    for target, deliveries in died.items():
        answer = why_urgent(changed, WhyCase.DEAD, now) if target is DeliveryTarget.TESTNOD else None
        text = _of_answer(answer) or _copies_given_up(build, target, deliveries)
        yield EventKind.DEAD_DELIVERY, text, len(deliveries)


def _copies_given_up(build: Build, target: DeliveryTarget, deliveries: Sequence[Delivery]) -> str:
    """Return the sentence for reports that do not reach the archive or the mirror."""
    count, where = len(deliveries), TARGET_NAMES.get(target, "TestNod")
    status = (
        f"{counted(count, 'report')} of {subject_of(build.job_id, build.build_no)} {were(count)} given up for {where}"
    )
    return _text(f"{status}: {clause_or_unknown(deliveries[0].last_error)}", "remove the cause, then send them again")


def _stuck(build: Build, changed: Build, now: Instant) -> Iterator[_Fact]:
    if build.stuck_reason is None and changed.stuck_reason is not None:
        yield EventKind.STUCK_RUN, _of_answer(why_urgent(changed, WhyCase.STUCK, now)), 1


def _mismatches(build: Build, changed: Build) -> Iterator[_Fact]:
    if changed.result_mismatch is None or changed.result_mismatch == build.result_mismatch:
        return
    found = mismatch_of(changed)
    cause, action = cause_and_action(found.sentence if found else "", NO_ACTION)
    none = changed.result_mismatch is MismatchKind.NO_REPORT
    kind = EventKind.BUILD_WITHOUT_REPORTS if none else EventKind.RESULT_MISMATCH
    yield kind, _text(f"{subject_of(build.job_id, build.build_no)}: {cause}", action), 1


def _of_answer(answer: WhyAnswer | None) -> str:
    return _text(f"{answer.status}: {answer.cause}", answer.action) if answer else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A build that waits for an operator from now on, for the reason that its row had before and has now."""

    job_id: str
    build_no: BuildNo
    route: str  # of its run parameters; empty: it has none yet
    before: str | None
    reason: str | None
    waiting_on: str | None  # the breaker
    was_quiet: bool = False  # `before` was no event: a pause, or left to other gateways
    is_quiet: bool = False


def events_of_block(block: Block, subscriptions: Subscriptions) -> tuple[NoticeEvent, ...]:
    """Return the event of a build that begins to wait for an operator; a pause is an operator's own doing and none."""
    waits_already = block.before is not None and not block.was_quiet
    if not subscriptions or block.reason is None or waits_already or block.is_quiet:
        return ()
    waiting_on = block.waiting_on or ""
    of_breaker = waiting_on.removeprefix(route_breaker("")) if waiting_on.startswith(route_breaker("")) else ""
    route = block.route or of_breaker
    if not (targets := subscriptions.targets(EventKind.BLOCKED_ROUTE, route)):
        return ()
    cause, action = cause_and_action(block.reason, "correct this")
    event = NoticeEvent(
        kind=EventKind.BLOCKED_ROUTE,
        route=route,
        targets=targets,
        text=_text(f"{subject_of(block.job_id, block.build_no)} is blocked: {cause}", action),
        job_id=block.job_id,
        build_no=block.build_no,
    )
    return (event,)


# -- uploads -----------------------------------------------------------------------------------------------------


def events_of_upload(
    upload: AcceptedUpload, routes: Sequence[Route], subscriptions: Subscriptions
) -> tuple[NoticeEvent, ...]:
    """Return the event of an upload of which something was rejected. A caller that is not proven causes none."""
    if not subscriptions or not upload.rejections or not upload.caller:
        return ()
    route = _route_of(upload, routes)
    if not (targets := subscriptions.targets(EventKind.REJECTED_UPLOAD, route)):
        return ()
    first, count = upload.rejections[0], len(upload.rejections)
    what = counted(count, "file") if all(rejection.name for rejection in upload.rejections) else "an upload"
    cause, action = cause_and_action(first.reason, "correct this and upload it again")
    if first.name and first.name not in first.reason:
        cause = f"{clause_or_unknown(first.name)}: {cause}"
    which = "the first is " if count > 1 else ""
    status = f"{what} for {subject_of(upload.job_id, upload.build_no)} {were(count)} rejected"
    event = NoticeEvent(
        kind=EventKind.REJECTED_UPLOAD,
        route=route,
        targets=targets,
        text=_text(f"{status}: {which}{cause}", action),
        job_id=upload.job_id,
        build_no=upload.build_no,
    )
    return (event,)


def _route_of(upload: AcceptedUpload, routes: Sequence[Route]) -> str:
    """Return the route that an upload was meant for, as far as it is known when it arrives; else ""."""
    if upload.is_foreign:
        return ""
    kept = (rejection.quarantined.route for rejection in upload.rejections if rejection.quarantined is not None)
    allowed = upload.caller_routes
    possible = (route.name for route in candidate_routes(routes, keys_of_upload(upload.job_id, upload.build_no)))
    return next(filter(None, kept), "") or next((name for name in possible if allowed is None or name in allowed), "")


# -- conditions: what is announced once while it lasts -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """A state of the gateway or its upstreams that is announced once, and kept under `subject` until it ends."""

    subject: str
    event: NoticeEvent
    began_at: Instant | None = None  # None: now


AWAY: Final = "away:"
CERTIFICATE: Final = "certificate:"
"""How the subjects of conditions begin."""

ANNOUNCED_FOR: Final = Duration(400 * DAY)
"""How long the condition of a certificate is kept: longer than certificates are valid."""


def upstream_conditions(
    breakers: Iterable[CircuitBreaker],
    announced: Mapping[str, Instant],
    routes: Container[str],
    now: Instant,
    subscriptions: Subscriptions,
) -> tuple[list[Condition], list[Condition]]:
    """Return the upstreams that have been away for long, and those of `announced` that are back.

    `breakers` are the open ones. `announced` has since when each upstream has been away that a notice announced, by the
    subject of its condition; one that has been away since another time replaces it. Only upstreams of `routes`, those
    in the settings, and of all routes are announced.
    """
    new, ended = [], []
    away_now = {f"{AWAY}{each.name}": each for each in breakers if each.opened_at is not None}
    for subject, breaker in away_now.items():
        found = _upstream_of(breaker.name)
        long = breaker.opened_at is not None and after(breaker.opened_at, AWAY_FOR) <= now
        if announced.get(subject) == breaker.opened_at or found is None or not long:
            continue
        name, route = found
        if route and route not in routes:
            continue
        text = _text(away(name, breaker, now), "uploads are accepted; everything is delivered when it is back")
        new.append(_condition(subject, route, text, subscriptions, began_at=breaker.opened_at))
    for subject, since in announced.items():
        found = _upstream_of(subject.removeprefix(AWAY))
        if subject.startswith(AWAY) and subject not in away_now and found is not None:
            name, route = found
            text = _text(f"{name} is back after {span(between(since, now))}; what waited is delivered now")
            known = subscriptions if not route or route in routes else NO_SUBSCRIPTIONS
            ended.append(_condition(subject, route, text, known))
    return [condition for condition in new if condition.event.targets], ended


def _upstream_of(breaker: str) -> tuple[str, str] | None:
    """Return the name of an upstream for sentences, and its route; None for breakers that are no upstream."""
    if breaker in UPSTREAM_NAMES:
        return UPSTREAM_NAMES[breaker], ""
    for name, prefix in PARTS_OF_ROUTES.items():
        if breaker.startswith(prefix):
            route = breaker.removeprefix(prefix)
            return f"{name} for route {route}", route
    return None


def _condition(
    subject: str, route: str, text: str, subscriptions: Subscriptions, began_at: Instant | None = None
) -> Condition:
    targets = subscriptions.targets(EventKind.UPSTREAM_AWAY, route)
    event = NoticeEvent(kind=EventKind.UPSTREAM_AWAY, route=route, targets=targets, text=text)
    return Condition(subject=subject, event=event, began_at=began_at)


def certificate_condition(
    ends_at: Instant, fingerprint: str, path: str, now: Instant, subscriptions: Subscriptions
) -> Condition | None:
    """Return the condition of a certificate that ends soon or has ended; None if it lasts."""
    near = [days for days in CERTIFICATE_DAYS if between(now, ends_at) <= days * DAY]
    targets = subscriptions.targets(EventKind.CERTIFICATE_ENDS, "")
    if not near or not targets:
        return None
    verb = "has ended" if ends_at <= now else "ends"
    text = _text(
        f"the certificate of the server listener ({path}) {verb} at {rfc3339(ends_at)[:19]}Z",
        "put a new pair into its files; the gateway uses it within seconds",
    )
    event = NoticeEvent(kind=EventKind.CERTIFICATE_ENDS, route="", targets=targets, text=text)
    return Condition(subject=f"{CERTIFICATE}{fingerprint}:{near[-1]}", event=event)
