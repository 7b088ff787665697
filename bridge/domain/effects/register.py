"""What the answer to a register changes."""

from bridge.domain.build import Build, Delivery, Registration, RegistrationState
from bridge.domain.changes import AddRun, Change, DropRegistration, set_delivery, set_registration, set_run
from bridge.domain.effects.signals import NO_URL
from bridge.domain.effects.timing import URL_LIVES, register_again
from bridge.domain.gates import RouteHealth
from bridge.domain.outcomes import (
    Conflict,
    Foreign,
    NotSent,
    ProjectMissing,
    Registered,
    RegisterOutcome,
    Rejected,
    Unknown,
)
from bridge.domain.policy import Policy


def after_register(
    build: Build, life: Registration, outcome: RegisterOutcome, now: int, policy: Policy, health: RouteHealth
) -> tuple[Change, ...]:
    """Return what the answer to a register changes. No refusal is the end of a report: all are tried again."""
    delivery = build.deliveries[life.delivery_id]
    match outcome:
        case Registered():
            return named(build, life, outcome, now, policy, health)
        case ProjectMissing():
            return (DropRegistration(life.id),)  # the route is suspended, not the report
        case Conflict():
            return (DropRegistration(life.id), _tried(delivery, now, policy, health, outcome, conflicted=True))
        case Rejected() | Foreign() | NotSent():
            return (DropRegistration(life.id), _tried(delivery, now, policy, health, outcome))
        case Unknown():
            return (
                set_registration(life, state=RegistrationState.LOST),
                _tried(delivery, now, policy, health, outcome),
            )


def _tried(
    delivery: Delivery,
    now: int,
    policy: Policy,
    health: RouteHealth,
    outcome: Conflict | Rejected | Foreign | NotSent | Unknown,
    **also: bool,
) -> Change:
    again = register_again(delivery, now, policy, health, outcome)
    return set_delivery(delivery, last_error=outcome.message, **again, **also)


def named(
    build: Build, life: Registration, answer: Registered, now: int, policy: Policy, health: RouteHealth
) -> tuple[Change, ...]:
    """Return what the ids of an upload change.

    A run of the same project that was unknown until now proves that the older ones left pending. An upload without a
    URL is reported failed and registered again.
    """
    delivery = build.deliveries[life.delivery_id]
    known = any(run.test_run_id == answer.test_run_id for run in build.runs)
    older = [] if known else [run for run in build.runs if run.is_pending and run.may_be_of(answer.project_id)]
    ids = {"test_run_id": answer.test_run_id, "upload_id": answer.upload_id, "named_at": now}
    runs: tuple[Change, ...] = (
        AddRun(answer.test_run_id, answer.test_run_url, now, answer.project_id),
        *(set_run(run, status="processing") for run in older),
    )
    if not answer.presigned_url:
        failed = {"state": RegistrationState.FAILED_OWED, "attempts": 0, "due_at": now, "failure": NO_URL}
        again = register_again(delivery, now, policy, health)
        retry = set_delivery(delivery, last_error=NO_URL, conflicted=False, **again)
        return (set_registration(life, **ids, **failed), retry, *runs)
    return (
        set_registration(
            life,
            **ids,
            state=RegistrationState.NAMED,
            presigned_url=answer.presigned_url,
            expires_at=answer.expires_at or life.asked_at + URL_LIVES,
            attempts=0,
            due_at=now,
        ),
        set_delivery(delivery, conflicted=False),
        *runs,
    )
