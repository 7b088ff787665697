"""What the page of a build draws and lists: the spans of its timeline, and the events of its life."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bridge.domain.attempts import OF_BUILD, Attempt, AttemptOutcome, CallKind
from bridge.domain.build import DeliveryState, DeliveryTarget, EndReason
from bridge.domain.instants import SECOND
from bridge.domain.text_format import counted
from bridge.server.admin.console.charts import Mark, Span, duration
from bridge.store.console import BuildDetails
from bridge.values import dataclass

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


CALLS = {
    CallKind.REGISTER: "register at TestNod",
    CallKind.PUT: "send to TestNod's storage",
    CallKind.UPLOAD_FAILED: "report to TestNod that an upload failed",
    CallKind.FINALIZE: "finalize the run",
    CallKind.ARCHIVE: "copy to the archive",
    CallKind.MIRROR: "upload to CodeArts",
}
OUTCOMES = {
    AttemptOutcome.SUCCEEDED: "succeeded",
    AttemptOutcome.REJECTED: "rejected",
    AttemptOutcome.UNKNOWN: "no usable answer",
    AttemptOutcome.NOT_SENT: "could not be sent",
    AttemptOutcome.UNREADABLE: "the report could not be read",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to the build at `at` (microseconds UTC); `kind` is the class of its mark."""

    at: int
    text: str
    kind: str = "step"
    detail: str = ""
    since: str = ""  # how long after the event before; empty: at once


def spans_of(details: BuildDetails) -> list[Span]:
    """Return the bars of the timeline: the build, its deliveries with their attempts, its runs."""
    row = details.row
    spans = [Span(label="build at CodeArts", start=row.accepted_at, end=row.ended_at, kind="build")]
    names = {report.id: report.name for report in details.reports}
    to_testnod = [delivery for delivery in details.deliveries if delivery.target == DeliveryTarget.TESTNOD]
    for delivery in to_testnod[:MAX_DELIVERY_SPANS]:
        attempts = details.attempts.get(delivery.id, [])
        dead = delivery.state == DeliveryState.DEAD
        last_at = max([delivery.pending_since, *(_end_of(attempt) for attempt in attempts)])
        spans.append(
            Span(
                label=names.get(delivery.report_id, "report"),
                start=min([delivery.pending_since, *(attempt.at for attempt in attempts)]),
                end=last_at if dead else delivery.delivered_at,
                kind="dead" if dead else "delivery",
                marks=[_mark(attempt) for attempt in attempts],
            )
        )
    finalizes = details.attempts.get(OF_BUILD, [])
    for run in details.runs:
        last = run is details.runs[-1]
        marks = [_mark(attempt) for attempt in finalizes if last and attempt.at >= run.opened_at]
        ends = max([run.finalized_at or 0, *(mark.end for mark in marks)])
        end = None if run.finalized_at is None else ends
        spans.append(Span(label="test run", start=run.opened_at, end=end, kind="run", marks=marks))
    return spans


def _mark(attempt: Attempt) -> Mark:
    answer = f"HTTP {attempt.status}" if attempt.status else OUTCOMES[attempt.outcome]
    tip = f"{CALLS[attempt.call]}: {answer}, {duration(attempt.duration)}"
    kind = "ok" if attempt.outcome is AttemptOutcome.SUCCEEDED else "failed"
    return Mark(start=attempt.at, end=_end_of(attempt), kind=kind, tip=tip)


def _end_of(attempt: Attempt) -> int:
    return attempt.at + attempt.duration


def hidden_spans(details: BuildDetails) -> int:
    """Return how many deliveries the timeline does not draw."""
    count = sum(delivery.target == DeliveryTarget.TESTNOD for delivery in details.deliveries)
    return max(0, count - MAX_DELIVERY_SPANS)


def events_of(details: BuildDetails) -> list[Event]:
    """Return what happened, oldest first, at most MAX_EVENTS, with the time since the line before.

    Equal events at one time are one line.
    """
    row = details.row
    events = [Event(at=report.accepted_at, text="accepted", detail=report.name) for report in details.reports]
    if row.described_at is not None:
        events.append(Event(at=row.described_at, text="CodeArts named branch and commit"))
    if row.ended_at is not None:
        events.append(
            Event(at=row.ended_at, text=f"the build ended ({_end(row.end_reason)})", detail=row.build_result or "")
        )
    events += [
        Event(at=run.opened_at, text="TestNod opened a run", detail=run.test_run_id, kind="good")
        for run in details.runs
    ]
    events += _attempt_events(details)
    for rejection in details.rejections:
        what = rejection.name or "an upload"
        events.append(Event(at=rejection.rejected_at, text=f"rejected {what}", detail=rejection.reason, kind="bad"))
    shown = _together(sorted(events, key=lambda event: event.at))[:MAX_EVENTS]
    return [
        replace(event, since=f"{duration(event.at - before.at)} later" if event.at - before.at >= SECOND else "")
        for before, event in zip([*shown[:1], *shown], shown, strict=False)
    ]


def _attempt_events(details: BuildDetails) -> list[Event]:
    names = {report.id: report.name for report in details.reports}
    of_delivery = {delivery.id: names.get(delivery.report_id, "a report") for delivery in details.deliveries}
    found = []
    for delivery_id, attempts in details.attempts.items():
        name = of_delivery.get(delivery_id, "")
        for attempt in attempts:
            took = f"{f'HTTP {attempt.status} ' if attempt.status else ''}after {duration(attempt.duration)}"
            succeeded = attempt.outcome is AttemptOutcome.SUCCEEDED
            reason = "" if attempt.reason is None else f": {attempt.reason}"
            what = CALLS[attempt.call] if succeeded else f"{CALLS[attempt.call]}: {OUTCOMES[attempt.outcome]}"
            detail = f"{name} {took}{reason}" if name else f"{took}{reason}"
            found.append(Event(at=_end_of(attempt), text=what, kind="good" if succeeded else "bad", detail=detail))
    return found


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
