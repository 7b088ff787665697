"""What the page of a build draws and lists: the spans of its timeline, and the events of its life."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge.domain.build import DeliveryState, DeliveryTarget, EndReason, RegistrationState
from bridge.domain.text_format import counted
from bridge.server.admin.console.charts import Span
from bridge.store.console import BuildDetails

MAX_DELIVERY_SPANS: Final = 24
MAX_EVENTS: Final = 300
TOGETHER_US: Final = 1_000_000
"""Equal events within this time are one line."""

END_REASONS = {
    EndReason.BUILD_INFO: "CodeArts says so",
    EndReason.CALLER: "an upload had complete=true",
    EndReason.IDLE: "inferred, because no report came for polling.idle_timeout",
    EndReason.NOT_FOUND: "inferred, because CodeArts has no such build",
    EndReason.MAX_AGE: "inferred, because no report came for polling.max_age",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to the build at `at` (microseconds UTC); `kind` is the class of its mark."""

    at: int
    text: str
    kind: str = "step"
    detail: str = ""


def spans_of(details: BuildDetails) -> list[Span]:
    """Return the bars of the timeline: the build, its deliveries, its runs."""
    row = details.row
    spans = [Span(label="build at CodeArts", start=row.accepted_at, end=row.ended_at, kind="build")]
    names = {report.id: report.name for report in details.reports}
    to_testnod = [delivery for delivery in details.deliveries if delivery.target == DeliveryTarget.TESTNOD]
    for delivery in to_testnod[:MAX_DELIVERY_SPANS]:
        dead = delivery.state == DeliveryState.DEAD
        spans.append(
            Span(
                label=names.get(delivery.report_id, "report"),
                start=delivery.pending_since,
                end=(delivery.first_failure_at or delivery.pending_since) if dead else delivery.delivered_at,
                kind="dead" if dead else "delivery",
            )
        )
    spans += [Span(label="test run", start=run.opened_at, end=run.finalized_at, kind="run") for run in details.runs]
    return spans


def hidden_spans(details: BuildDetails) -> int:
    """Return how many deliveries the timeline does not draw."""
    count = sum(delivery.target == DeliveryTarget.TESTNOD for delivery in details.deliveries)
    return max(0, count - MAX_DELIVERY_SPANS)


def events_of(details: BuildDetails) -> list[Event]:
    """Return what happened, oldest first, at most MAX_EVENTS; equal events at one time are one line."""
    row, names = details.row, {report.id: report.name for report in details.reports}
    of_delivery = {delivery.id: names.get(delivery.report_id, "a report") for delivery in details.deliveries}
    events = [Event(at=report.accepted_at, text="accepted", detail=report.name) for report in details.reports]
    for registration in details.registrations:
        name = of_delivery.get(registration.delivery_id, "a report")
        events.append(Event(at=registration.requested_at, text="registered at TestNod", detail=name))
        if registration.stored_at is not None:
            events.append(
                Event(at=registration.stored_at, text="stored in TestNod's storage", detail=name, kind="good")
            )
        if registration.state in (RegistrationState.LOST, RegistrationState.FAILED):
            failure = registration.failure or "no answer came, so its ids are not known"
            events.append(
                Event(at=registration.requested_at, text=f"an upload of {name} failed", detail=failure, kind="bad")
            )
    if row.described_at is not None:
        events.append(Event(at=row.described_at, text="CodeArts named branch and commit"))
    if row.ended_at is not None:
        events.append(
            Event(at=row.ended_at, text=f"the build ended ({_end(row.end_reason)})", detail=row.build_result or "")
        )
    for run in details.runs:
        events.append(Event(at=run.opened_at, text="TestNod opened a run", detail=run.test_run_id))
        if run.finalized_at is not None:
            events.append(
                Event(
                    at=run.finalized_at,
                    text="the run was finalized",
                    detail=f"status {run.status or 'unknown'}",
                    kind="good",
                )
            )
    for rejection in details.rejections:
        what = rejection.name or "an upload"
        events.append(Event(at=rejection.rejected_at, text=f"rejected {what}", detail=rejection.reason, kind="bad"))
    return _together(sorted(events, key=lambda event: event.at))[:MAX_EVENTS]


def _end(reason: str | None) -> str:
    return END_REASONS[EndReason(reason)] if reason else "for an unknown reason"


def _together(events: Sequence[Event]) -> list[Event]:
    """Return the events with equal ones that follow each other within TOGETHER_US as one."""
    found: list[Event] = []
    counts: list[int] = []
    for event in events:
        last = found[-1] if found else None
        if (
            last
            and last.text == event.text
            and last.kind == event.kind
            and event.kind != "bad"
            and event.at - last.at < TOGETHER_US
        ):
            counts[-1] += 1
        else:
            found.append(event)
            counts.append(1)
    return [
        event if count == 1 else Event(at=event.at, text=f"{event.text}: {counted(count, 'report')}", kind=event.kind)
        for event, count in zip(found, counts, strict=True)
    ]
