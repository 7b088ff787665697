"""What has become true without any call: it is written down before anything is asked.

It knows what follows from time and settings; what follows from answers stands in effects/.
"""

from collections.abc import Iterator

from bridge.domain.build import BuildState, Delivery, DeliveryState, EndedBy, Registration, RegistrationState
from bridge.domain.changes import Change, set_build, set_delivery, set_registration
from bridge.domain.effects.ending import ended
from bridge.domain.effects.timing import failed_owed, register_again
from bridge.domain.quality import QualityState
from bridge.domain.rules.moment import Moment
from bridge.domain.step import Write

GIVEN_UP = "Given up after trying for as long as is allowed."
URL_EXPIRED = "the presigned URL expired before the upload went through"
PUT_MARGIN = 5_000_000
"""A PUT is not begun in the last 5 seconds of its URL: it would arrive too late."""


def interrupted(moment: Moment) -> Write | None:
    """Nobody is asking any more, or their answer will find the registration lost."""
    changes: list[Change] = []
    for life in moment.build.registrations.values():
        if life.state is RegistrationState.ASKED:
            changes.append(set_registration(life, state=RegistrationState.LOST))
            changes.extend(_register_again(moment, life, "TestNod's answer was lost when the gateway was interrupted"))
    return Write("register interrupted", tuple(changes)) if changes else None


def late(moment: Moment) -> Write | None:
    """Something came after the last finalize."""
    build = moment.build
    if build.state not in (BuildState.FINALIZED, BuildState.CLOSED) or build.batch_seq == build.finalized_seq:
        return None
    values = {
        "state": BuildState.ENDED,
        "hold_since": moment.now,
        "hold_away_us": moment.away_us,
        "finalize_attempts": 0,
        "finalize_due_at": 0,
    }
    return Write("another batch", (set_build(**values),))


def taken_back(moment: Moment) -> Write | None:
    """An end that was only guessed holds for the reports it has seen."""
    build = moment.build
    if build.state is not BuildState.ENDED or not build.ended_by_guess:
        return None
    if build.last_report_at == build.ended_report_at:
        return None
    values = {"state": BuildState.OPEN, "ended_at": None, "ended_by": None, "unknown_since": None}
    if build.quality is not None and build.quality.state is QualityState.WAITING:
        values["quality"] = None  # asked at the end, whenever that is
    return Write("end taken back", (set_build(**values, polls=0, poll_due_at=0, poll_reserved=False),))


def build_ended(moment: Moment) -> Write | None:
    """End the build if no upstream has to be asked.

    No build is ended for its age before the clock is trusted. An idle one is ended unless the clock is suspect: a
    report that comes later takes that back.
    """
    build, policy = moment.build, moment.policy
    if build.state is not BuildState.OPEN:
        return None
    if build.complete_at is not None:
        return _end(moment, EndedBy.CALLER)
    idle = not policy.asks_codearts and moment.due(build.last_report_at + policy.idle_end)
    if idle and not moment.clock_suspect():
        return _end(moment, EndedBy.IDLE)
    if moment.due(build.last_report_at + policy.max_age) and moment.clock_trusted():
        return _end(moment, EndedBy.MAX_AGE)
    return None


def _end(moment: Moment, by: EndedBy) -> Write:
    return Write("build ended", ended(moment.build, by, moment.now, moment.away_us))


def url_expired(moment: Moment) -> Write | None:
    """A URL that has run out is spent: whether it was used is asked with upload_failed, later."""
    changes: list[Change] = []
    for life in moment.build.registrations.values():
        if life.state is RegistrationState.NAMED and moment.due((life.expires_at or 0) - PUT_MARGIN):
            changes.append(_failed(moment, life, URL_EXPIRED))
            changes.extend(_register_again(moment, life, life.failure or URL_EXPIRED))
    return Write("presigned URL expired", tuple(changes)) if changes else None


def deliveries_died(moment: Moment) -> Write | None:
    """A report failed for too long, or its caller may not send there."""
    changes: list[Change] = []
    for delivery in moment.owed:
        if reason := _death(moment, delivery):
            changes.append(set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason))
            named = (life for life in moment.lives[delivery.id] if life.state is RegistrationState.NAMED)
            changes.extend(_failed(moment, life, reason) for life in named)
    return Write("delivery died", tuple(changes)) if changes else None


def stuck(moment: Moment) -> Write | None:
    """A finalize has failed for too long: shown also while nobody calls, because its gate is closed."""
    build = moment.build
    if build.stuck or build.finalize_failing_since is None:
        return None
    if not moment.due(build.finalize_failing_since + moment.policy.confirm_for):
        return None
    return Write("build is stuck", (set_build(stuck=f"TestNod has been failing finalize: {build.last_error}"),))


def given_up(moment: Moment, delivery: Delivery, gate: str) -> str | None:
    """Say that a delivery which needs nobody but `gate` was tried for long enough; None where it was not."""
    if delivery.trying_since is None or delivery.unread_since is not None:
        return None
    away = moment.gates.away_of(gate, moment.now) - delivery.trying_away_us
    over_at = delivery.trying_since + moment.policy.give_up_after + away
    over = over_at <= moment.now if moment.gates.closed(gate) else moment.due(over_at)
    return f"{GIVEN_UP} The last error was: {delivery.last_error}" if over and moment.clock_trusted() else None


def _death(moment: Moment, delivery: Delivery) -> str | None:
    """Say why a report will not go to TestNod; None while it may."""
    if moment.route is None or not moment.described:
        return None
    report = moment.build.reports[delivery.report_id]
    if report.caller_routes is not None and moment.route not in report.caller_routes:
        return f'Caller "{report.caller}" may not send to route "{moment.route}". Bind it there, then send again.'
    if delivery.trying_since is None or delivery.unread_since is not None:  # the bridge's own spool is at fault
        return None
    away = moment.away_us - delivery.trying_away_us
    over_at = delivery.trying_since + moment.policy.give_up_after + away
    if moment.due_while_working(over_at, moment.route) and moment.clock_trusted():
        return f"{GIVEN_UP} The last error was: {delivery.last_error}"
    return None


def _register_again(moment: Moment, life: Registration, because: str) -> Iterator[Change]:
    delivery = moment.build.deliveries[life.delivery_id]
    if delivery.state is DeliveryState.OWED:
        again = register_again(delivery, moment.now, moment.policy, moment.health)
        yield set_delivery(delivery, last_error=delivery.unread or because, **again)


def _failed(moment: Moment, life: Registration, reason: str) -> Change:
    values = failed_owed(life, moment.now, moment.policy, fence=moment.build.fence)
    return set_registration(life, **values, failure=life.failure or reason)
