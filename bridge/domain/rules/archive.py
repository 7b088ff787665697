"""When a copy of what TestNod has goes to the archive: last, so that one that fails holds nothing else back.

It knows neither where the archive is nor how it is written.
"""

from bridge.domain.build import Delivery, DeliveryState, Target
from bridge.domain.changes import set_delivery
from bridge.domain.gates import ARCHIVE
from bridge.domain.rules.facts import given_up
from bridge.domain.rules.moment import Moment
from bridge.domain.step import Archive, Do, Probe, Step, Write

NO_ARCHIVE = "There is no archive (any more): store.archive is empty."


def archive(moment: Moment) -> Step | None:
    """Copy what TestNod has, or give a copy up."""
    at_testnod = _at_testnod(moment)
    ready = [delivery for delivery in moment.build.owed(Target.ARCHIVE) if delivery.report_id in at_testnod]
    dead = [(delivery, reason) for delivery in ready if (reason := _death(moment, delivery))]
    if dead:
        lost = (set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason) for delivery, reason in dead)
        return Write("archive copy given up", tuple(lost))
    if ready and moment.clock_suspect():  # a copy lies, and is removed, by the day of its delivery
        return None
    due = [
        Archive(delivery.id)
        for delivery in ready
        if moment.due(delivery.due_at) and moment.open(ARCHIVE, probed_by_visits=True)
    ]
    if due:
        return Do(tuple(due[: 1 if moment.gates.probing else moment.policy.per_build]))
    return Probe(moment.probe) if moment.probe else None


def _at_testnod(moment: Moment) -> set[int]:
    return {
        delivery.report_id
        for delivery in moment.build.deliveries.values()
        if delivery.target is Target.TESTNOD and delivery.state is DeliveryState.DELIVERED
    }


def _death(moment: Moment, delivery: Delivery) -> str | None:
    return given_up(moment, delivery, ARCHIVE) if moment.policy.archives else NO_ARCHIVE
