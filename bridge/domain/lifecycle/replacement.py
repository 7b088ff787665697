"""Replace a run that stays pending because of a lost registration: its reports go out again under another build_id.

TestNod keeps a run pending while an upload of it is open, and nothing closes an upload whose id is unknown. The run is
given up only on an answer that shows it pending after `polling.confirm_timeout`, and never after an answer that showed
it out of pending. Each replacement raises the generation of the run parameters; runs of earlier ones do not count.
"""

from dataclasses import replace

from bridge.domain.build import (
    Build,
    BuildState,
    Delivery,
    DeliveryState,
    DeliveryTarget,
    Registration,
    RegistrationState,
    Run,
)
from bridge.domain.changes import BumpReportSeq, Change, set_build, set_delivery, set_run
from bridge.domain.circuit_breaker import RouteHealth, outage_since
from bridge.domain.instants import EPOCH, MINUTE, ZERO, Duration, Instant, after, between
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.unreadable_body import DAMAGE_TIMEOUT
from bridge.domain.policy import Policy
from bridge.domain.steps import Apply
from bridge.domain.text_format import clause, counted

MAX_GENERATIONS = 3
"""If the runs of three generations in a row stay pending, more of them help no better than TestNod's support."""

ASK_AGAIN_AFTER = MINUTE
"""If the next run is not opened so soon after the last one was seen pending, TestNod is asked once more."""

CALM_SHARE = 6
"""A run that replaces another one is sent once TestNod was not disturbed for this part of `polling.confirm_timeout`: by
default for ten minutes. Faults that come and go, like those of a deployment, are over by then, and the build has
waited longer already."""

CALM_CALLS = 5
"""So often TestNod is asked in that time for the status of the pending run, by default every two minutes: without calls
of other builds, nothing else would show a disturbance."""

MAX_CALM_WAIT = 3
"""It is sent after this many `polling.confirm_timeout` in any case, by default after three hours, so that faults that
never end delay it no further."""

NOT_CALM = (
    "TestNod has left calls unanswered of late, so the run that replaces the pending one is not sent yet: "
    "another lost answer would hold it, too"
)


def lost_registrations(build: Build) -> int:
    """Return how many uploads may hold the present run pending without the bridge being able to end them."""
    return sum(each.generation == build.generation for each in build.registrations.where(_is_lost))


def _is_lost(registration: Registration) -> bool:
    return registration.state is RegistrationState.LOST


def confirm_over_at(build: Build, health: RouteHealth) -> Instant:
    """Return when a run that stays pending is given up; outages of TestNod since the finalize do not count."""
    outage_us = outage_since(health.testnod_outage_us, build.outage_us_at_hold)
    return after(build.confirm_until or EPOCH, outage_us)


def may_be_replaced(build: Build) -> bool:
    """Return whether the bytes of delivered reports are kept, because their run may still have to be replaced."""
    if build.state in (BuildState.OPEN, BuildState.ENDED):
        return True
    return build.confirm_until is not None and any(run.is_pending for run in build.runs)


def reports_to_send_again(build: Build) -> list[Delivery]:
    """Return the delivered reports that are in no run that has left pending."""
    left = {run.test_run_id for run in build.runs if not run.is_pending}
    arrived = {
        registration.delivery_id
        for registration in build.registrations.values()
        if registration.state is RegistrationState.STORED and registration.test_run_id in left
    }
    return [
        delivery
        for delivery in build.deliveries.values()
        if delivery.target is DeliveryTarget.TESTNOD
        and delivery.state is DeliveryState.DELIVERED
        and delivery.id not in arrived
    ]


def obstacle_to_replacement(build: Build, policy: Policy) -> str | None:
    """Return as a clause why a run that is held by a lost registration is not replaced; None if it can be."""
    again = reports_to_send_again(build)
    gone = sum(not build.reports[delivery.report_id].has_bytes for delivery in again)
    if not policy.replace_stuck_runs:
        return "delivery.replace_stuck_runs is false"
    if build.run_parameters is None or not build.run_parameters.replaceable:
        return "the ledger was restored, and may not show whether it was replaced before"
    if build.generation >= MAX_GENERATIONS:
        return f"{MAX_GENERATIONS} runs in a row have stayed pending"
    if not again:
        return "all delivered reports are in a run that has left pending"
    return f"the bytes of {counted(gone, 'report')} are gone" if gone else None


def is_replaced_if_pending(build: Build, now: Instant, policy: Policy, health: RouteHealth) -> bool:
    """Return whether the run is replaced if TestNod answers now that it is pending."""
    over = build.confirm_until is not None and now >= confirm_over_at(build, health) and not health.clock_doubted
    return over and lost_registrations(build) > 0 and obstacle_to_replacement(build, policy) is None


def damage_obstacle(build: Build, now: Instant, health: RouteHealth, unreadable: str) -> str | None:
    """Return as a clause why reports that the spool does not return are not sent again; None while it may recover."""
    if between(confirm_over_at(build, health), now) < DAMAGE_TIMEOUT:
        return None
    return f"a report of it cannot be read ({clause(unreadable)})"


def replace_run(build: Build, now: Instant) -> tuple[Change, ...]:
    """Return the changes that give the present run up: its reports are pending again, for the next generation."""
    parameters = build.run_parameters
    if parameters is None:
        return ()
    number = parameters.generation + 1
    following = replace(parameters, generation=number, build_id=parameters.build_id_of(number), chosen_at=now)
    again = {
        "state": DeliveryState.PENDING,
        "pending_since": now,
        "due_at": now,
        "attempts": 0,
        "send_alone": False,
        "first_failure_at": None,
        "outage_us_at_first_failure": ZERO,
        "rejected_since": None,
        "last_error": None,
    }
    return (
        set_build(run_parameters=following, **_ANSWERED, confirm_until=None, stuck_reason=None),
        BumpReportSeq(),
        *(set_delivery(delivery, **again) for delivery in reports_to_send_again(build)),
    )


_ANSWERED = {"confirm_attempts": 0, "confirm_due_at": EPOCH, "finalize_failing_since": None, "last_error": None}


# -- when the next run is sent ---------------------------------------------------------------------------------------


def calm_us(policy: Policy) -> Duration:
    """Return how long TestNod must not have been disturbed before a run is sent that replaces another one."""
    return Duration(policy.confirm_timeout // CALM_SHARE)


def next_ask_at(now: Instant, over_at: Instant, policy: Policy) -> Instant:
    """Return when TestNod is asked at the latest about a run that is replaced at `over_at`: often just before that."""
    return max(after(over_at, Duration(-calm_us(policy))), after(now, Duration(calm_us(policy) // CALM_CALLS)))


def defer_replacement(context: PlanContext) -> Apply | None:
    """Return later due times for the reports of a run that replaces another one, while TestNod is disturbed.

    Each lost answer costs one of few runs. A run that is held already cannot be lost again, so its rest is sent.
    An open breaker holds the reports back by itself; the calm begins when it closes.
    """
    build, now = context.build, context.now
    if not may_lose_its_run(build) or context.route is None or context.breakers.in_outage(context.route):
        return None
    until = _calm_at(context, context.route)
    if until <= now:
        return None
    if is_unopened(build) and build.run_parameters is not None:  # so that next_finalize_step asks about the last run
        context.wait_until(after(build.run_parameters.chosen_at, Duration(calm_us(context.policy) // CALM_CALLS)))
    in_progress = {registration.delivery_id for registration in build.unsettled()}
    due = [each for each in context.sendable if each.due_at <= now and each.id not in in_progress]
    deferred = tuple(set_delivery(delivery, due_at=until, last_error=NOT_CALM) for delivery in due)
    return Apply("replacement_deferred", deferred) if deferred else None


def may_lose_its_run(build: Build) -> bool:
    """Return whether reports are still to be sent again, in a run that no lost registration holds."""
    if build.generation == 1 or lost_registrations(build):
        return False
    return any(delivery.delivered_at is not None for delivery in build.sendable(DeliveryTarget.TESTNOD))


def _calm_at(context: PlanContext, route: str) -> Instant:
    outage_ended_at = context.breakers.outage_ended_at(route, context.now)
    disturbed_at = max(outage_ended_at, context.breakers.disturbed_at or EPOCH)
    calm_at = after(disturbed_at, calm_us(context.policy))
    return min(calm_at, _waited_enough_at(context, outage_ended_at))


def _waited_enough_at(context: PlanContext, since: Instant = EPOCH) -> Instant:
    """Return when reports that are sent again wait for calm no longer: since they are pending, or since `since`."""
    again = (each.pending_since for each in context.sendable if each.delivered_at is not None)
    since = max(since, min(again, default=EPOCH))
    return after(since, Duration(MAX_CALM_WAIT * context.policy.confirm_timeout))


def leaves_probes_to_others(context: PlanContext) -> bool:
    """Return whether other builds probe whether TestNod registers: a probe without an answer would cost the run."""
    return may_lose_its_run(context.build) and not context.wait_until(_waited_enough_at(context))


# -- before the next run is opened ---------------------------------------------------------------------------------


def is_unopened(build: Build) -> bool:
    """Return whether the run of the present generation replaces another one and no register was called for it."""
    return build.generation > 1 and not build.current_registrations


def must_ask_again(build: Build, now: Instant) -> bool:
    """Return whether TestNod is asked for the status of the replaced run before the next one is opened.

    The gateway may have been down, or TestNod away, since the run was seen pending.
    """
    parameters = build.run_parameters
    if parameters is None or not is_unopened(build) or not build.sendable(DeliveryTarget.TESTNOD):
        return False
    return between(parameters.chosen_at, now) > ASK_AGAIN_AFTER


def must_finalize_again(build: Build) -> bool:
    """Return whether the newest run got a report after it was finalized, because TestNod still had it pending.

    It may leave `pending` at any moment. The next register then opens another run, and no finalize reaches the earlier
    one any more. So it is finalized again before the next register, unless finalize fails.
    """
    if build.state is not BuildState.ENDED or build.finalize_attempts or not build.current_runs:
        return False
    newest, since = build.current_runs[-1], build.finalized_at or EPOCH
    return newest.finalized_at is not None and any(
        each.test_run_id == newest.test_run_id and each.registered_at is not None and each.registered_at > since
        for each in build.current_registrations
    )


def still_replaced(build: Build, now: Instant) -> tuple[Change, ...]:
    """Return the changes after an answer that the replaced run is still pending, or gone: the next one is opened."""
    parameters = build.run_parameters
    return (set_build(run_parameters=replace(parameters, chosen_at=now), **_ANSWERED),) if parameters else ()


def take_back(build: Build, status: str) -> tuple[Change, ...]:
    """Return the changes after an answer that the replaced run has left pending: it counts, with all its reports.

    Reports that arrived since stay pending, and go to the build_id of that run.
    """
    parameters = build.run_parameters
    if parameters is None:
        return ()
    number = parameters.generation - 1
    before = replace(parameters, generation=number, build_id=parameters.build_id_of(number))
    arrived = [delivery for delivery in build.pending(DeliveryTarget.TESTNOD) if delivery.delivered_at is not None]
    return (
        set_build(run_parameters=before, **_ANSWERED),
        *(set_delivery(delivery, state=DeliveryState.DELIVERED, last_error=None) for delivery in arrived),
        *set_status([run for run in build.runs if run.generation == number], status),
    )


def set_status(runs: list[Run] | tuple[Run, ...], status: str, **values: Instant) -> tuple[Change, ...]:
    """Return the status of the newest of `runs`; a run that was seen out of pending never becomes pending again."""
    if not runs:
        return ()
    if not runs[-1].is_pending and status == "pending":
        return (set_run(runs[-1], **values),) if values else ()
    return (set_run(runs[-1], status=status, **values),)
