"""Which reports are registered and PUT now, and which spent registrations TestNod is told of.

It knows neither CodeArts nor the end of a run.
"""

from collections.abc import Iterator

from bridge.domain.build import Delivery, Registration, RegistrationState
from bridge.domain.gates import register_gate, storage_gate
from bridge.domain.line import line_of
from bridge.domain.rules.moment import Moment
from bridge.domain.step import Call, Put, Register, ReportFailed


def uploads(moment: Moment) -> Iterator[Call]:
    """Yield at most `per_build` calls: what TestNod was already told of first, then what it does not know yet."""
    lives = moment.build.unsettled()
    in_flight = {life.delivery_id for life in lives}
    waiting = [delivery for delivery in moment.owed if delivery.id not in in_flight] if moment.described else []
    if not (lives or waiting):
        return
    testnod_open = moment.testnod_open()
    if moment.route is None:
        return
    free = moment.policy.per_build
    for life in lives:
        if free and _continues(moment, life, moment.route, testnod_open=testnod_open):
            yield _next_call(life)
            free -= 1
    if waiting and testnod_open:
        yield from _registers(moment, waiting, free, alone=not in_flight)


def _continues(moment: Moment, life: Registration, route: str, *, testnod_open: bool) -> bool:
    if life.state is RegistrationState.NAMED:  # a live URL needs its storage and nobody else
        return moment.due(life.due_at) and moment.open(storage_gate(route), probed_by_visits=True)
    return testnod_open and moment.due(life.due_at)


def _next_call(life: Registration) -> Call:
    return Put(life.id) if life.state is RegistrationState.NAMED else ReportFailed(life.id)


def _registers(moment: Moment, waiting: list[Delivery], free: int, *, alone: bool) -> Iterator[Call]:
    if moment.hold_is_over or moment.route is None or _stands_in_line(moment):
        return
    first_of_batch = not any(
        life.named_at is not None and life.named_at >= moment.batch_began_at
        for life in moment.build.registrations.values()
    )
    if first_of_batch or any(delivery.conflicted for delivery in waiting):
        # TestNod answers 409 when two registers open one run at once.
        waiting = sorted(waiting, key=lambda delivery: not delivery.conflicted)
        free = min(free, 1) if alone else 0
    for delivery in waiting:
        if free <= 0:
            return
        if moment.due(delivery.due_at) and _may_register(moment, moment.route):
            yield Register(delivery.id)
            free -= 1


def _stands_in_line(moment: Moment) -> bool:
    """Whether earlier builds of the job open their runs first: order is worth no more than `hold_run`."""
    build = moment.build
    if build.pin or not build.earlier_in_line or moment.due(build.accepted_at + moment.policy.hold_run):
        return False
    moment.waits_for = moment.waits_for or line_of(build.job_id)
    return True


def _may_register(moment: Moment, route: str) -> bool:
    gates = (register_gate(route), storage_gate(route))
    return all(moment.open(gate, probed_by_visits=True) for gate in gates)
