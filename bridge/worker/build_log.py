"""Log what changes mean for a build: one event for each thing that happens, for all calls and rules that cause it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from bridge.domain.build import Build, BuildState, DeliveryState, DeliveryTarget
from bridge.domain.changes import AddRun, Change, SetBuild, SetDelivery

MAX_NAMED_REPORTS: Final = 5
"""Names in one line; `deliveries` counts all."""

Fields = Callable[[], Mapping[str, object]]
"""Returns the fields that identify a build; called only if there is a line to write."""

LOGGED_HERE: Final = frozenset({"build_ended", "build_stuck", "delivery_died", "delivery_blocked"})
"""Events of `Apply` steps that `log_changes` logs with what the step does not state."""

log = structlog.get_logger(__name__)


def log_changes(build: Build, changes: Iterable[Change], fields: Fields) -> None:
    """Log what `changes` mean for `build`, which is as it was before them; `fields` returns what identifies it."""
    died: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    blocked: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for change in changes:
        match change:
            case SetDelivery(id=delivery_id, values=values):
                group = died if values.get("state") is DeliveryState.DEAD else None
                group = blocked if values.get("blocked_since") is not None else group
                delivery = build.deliveries.get(delivery_id)
                if group is not None and delivery is not None:
                    name = build.reports[delivery.report_id].name
                    group[delivery.target.value, values.get("last_error") or ""].append(name)
            case AddRun() if all(run.test_run_id != change.test_run_id for run in build.runs):
                log.info("run_opened", test_run_id=change.test_run_id, test_run_url=change.test_run_url, **fields())
            case SetBuild(values=values):
                _log_build(build, values, fields)
    for event, groups in (("delivery_died", died), ("delivery_blocked", blocked)):
        for (target, reason), names in groups.items():
            shown = names[:MAX_NAMED_REPORTS]
            log.warning(event, target=target, reason=reason, deliveries=len(names), reports=shown, **fields())


def _log_build(build: Build, values: Mapping[str, object], fields: Fields) -> None:
    if values.get("described_at") is not None and build.described_at is None:
        record = values.get("record") or build.record
        log.info(
            "build_described",
            branch=getattr(record, "branch", None),
            commit=getattr(record, "commit", None),
            **fields(),
        )
    if values.get("state") is BuildState.ENDED and build.state is BuildState.OPEN:
        log.info("build_ended", reason=values.get("end_reason"), build_result=values.get("build_result"), **fields())
    if values.get("stuck_reason") is not None and build.stuck_reason is None:
        log.warning("build_stuck", reason=values["stuck_reason"], **fields())


def log_deliveries(before: Build, after: Build, fields: Fields) -> None:
    """Log the reports that a step has delivered, in one line for each target."""
    if after.deliveries is before.deliveries:
        return
    delivered: defaultdict[DeliveryTarget, list[str]] = defaultdict(list)
    for delivery in after.deliveries.changed_since(before.deliveries):
        earlier = before.deliveries.get(delivery.id)
        is_news = earlier is not None and earlier.state is not DeliveryState.DELIVERED
        if is_news and delivery.state is DeliveryState.DELIVERED:
            delivered[delivery.target].append(after.reports[delivery.report_id].name)
    for target, names in delivered.items():
        counts = {"deliveries": len(names), "pending": len(after.pending(target))}
        log.info("reports_delivered", target=target.value, reports=names[:MAX_NAMED_REPORTS], **counts, **fields())


def log_blocked(build: Build, reason: str | None, fields: Fields, *, quietly: bool = False) -> None:
    """Log that a build waits for an operator from now on, or no longer; `reason` is what has to be corrected.

    A build that waits `quietly` is paused, or left to other gateways: that is not logged.
    """
    before = None if build.blocked_quietly else build.blocked_reason
    if quietly:
        return
    if reason is not None and reason != before:
        log.warning("build_blocked", reason=reason, **fields())
    elif reason is None and before is not None:
        log.info("build_unblocked", **fields())
