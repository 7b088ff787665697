"""What CodeArts' own report API is sent beside TestNod, and when both are compared.

It knows neither the form of an upload nor how totals are compared.
"""

from bridge.domain.build import Delivery, DeliveryState, Target
from bridge.domain.changes import AddDelivery, set_delivery
from bridge.domain.gates import MIRROR
from bridge.domain.mirror import compare_due_at, new_delivery, not_owed_yet, requests_of
from bridge.domain.rules.facts import given_up
from bridge.domain.rules.moment import Moment
from bridge.domain.step import Call, CompareMirror, Mirror, Write

NO_MIRROR = 'Route "{}" does not mirror to CodeArts (any more).'


def owed_to_mirror(moment: Moment) -> Write | None:
    """Owe CodeArts what came, before any register: bytes go as soon as nobody is owed them."""
    if moment.route is None or not _mirrors(moment) or not moment.described:
        return None
    new = tuple(AddDelivery(new_delivery(report, moment.now)) for report in not_owed_yet(moment.build, moment.route))
    return Write("owed to the mirror", new) if new else None


def mirror_given_up(moment: Moment) -> Write | None:
    """Give up what CodeArts did not take for as long as is allowed, or is to have no more."""
    owed = moment.build.owed(Target.CODEARTS)
    dead = [(delivery, reason) for delivery in owed if (reason := _death(moment, delivery))]
    lost = (set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason) for delivery, reason in dead)
    return Write("mirror given up", tuple(lost)) if dead else None


def uploads_to_mirror(moment: Moment) -> list[Call]:
    """Return requests to CodeArts' report API; each runs by itself, and holds no other call back."""
    owed = [delivery for delivery in moment.build.owed(Target.CODEARTS) if moment.due(delivery.due_at)]
    if owed and _open(moment):
        free = 1 if MIRROR in moment.gates.probing else moment.policy.per_build
        return [Mirror(ids) for ids in requests_of(moment.build, owed)[:free]]
    compared = _mirrors(moment) and moment.due(compare_due_at(moment.build, moment.policy.confirm_for))
    # A comparison shows nothing of uploads, so it is never the probe of their gate.
    return [CompareMirror()] if compared and not moment.gates.is_closed(MIRROR) else []


def _mirrors(moment: Moment) -> bool:
    return any(route.name == moment.route and route.mirror for route in moment.policy.routes)


def _death(moment: Moment, delivery: Delivery) -> str | None:
    if moment.route is not None and not _mirrors(moment):
        return NO_MIRROR.format(moment.route)
    return given_up(moment, delivery, MIRROR)


def _open(moment: Moment) -> bool:
    """Whether calls may pass to the mirror; a build never waits for its gate, but for TestNod's."""
    gate = moment.gates.closed(MIRROR)
    if gate is not None and gate.probe_at is not None and moment.due(gate.probe_at):
        moment.probe = moment.probe or MIRROR
    return gate is None
