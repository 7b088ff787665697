"""What the answer to a register changes.

It follows the rows `register` of design.md, What each answer means.
"""

from bridge.domain.build import Build, Delivery, DeliveryState, Registration, RegistrationState
from bridge.domain.changes import AddRun, Change, DropRegistration, set_delivery, set_registration, set_run
from bridge.domain.effects.timing import URL_LIVES, register_again
from bridge.domain.outcomes import (
    BuildIdRequired,
    Conflict,
    NotSent,
    ProjectMissing,
    Registered,
    RegisterOutcome,
    Rejected,
    Unknown,
)
from bridge.domain.policy import Policy


def after_register(
    build: Build, life: Registration, outcome: RegisterOutcome, now: int, policy: Policy, away_us: int
) -> tuple[Change, ...]:
    """Return what the answer to a register changes."""
    delivery = build.deliveries[life.delivery_id]
    match outcome:
        case Registered():
            return named(build, life, outcome, now)
        case ProjectMissing():
            return (DropRegistration(life.id),)  # the route is suspended, not the report
        case Conflict():
            return (DropRegistration(life.id), _tried(delivery, now, policy, away_us, outcome, conflicted=True))
        case BuildIdRequired(message=message):
            return (DropRegistration(life.id), set_delivery(delivery, state=DeliveryState.DEAD, last_error=message))
        case Rejected() | NotSent():
            return (DropRegistration(life.id), _tried(delivery, now, policy, away_us, outcome))
        case Unknown():
            return (
                set_registration(life, state=RegistrationState.LOST),
                _tried(delivery, now, policy, away_us, outcome),
            )


def _tried(
    delivery: Delivery,
    now: int,
    policy: Policy,
    away_us: int,
    outcome: Conflict | Rejected | NotSent | Unknown,
    **also: bool,
) -> Change:
    again = register_again(delivery, now, policy, away_us, outcome)
    return set_delivery(delivery, last_error=outcome.message, **again, **also)


def named(build: Build, life: Registration, answer: Registered, now: int) -> tuple[Change, ...]:
    """Return what the ids of an upload change; a run nobody had seen proves that the older ones left pending."""
    delivery = build.deliveries[life.delivery_id]
    known = any(run.test_run_id == answer.test_run_id for run in build.runs)
    older = [] if known else [run for run in build.runs if run.status in (None, "pending")]
    return (
        set_registration(
            life,
            state=RegistrationState.NAMED,
            test_run_id=answer.test_run_id,
            upload_id=answer.upload_id,
            presigned_url=answer.presigned_url,
            expires_at=answer.expires_at or life.asked_at + URL_LIVES,
            named_at=now,
            attempts=0,
            due_at=now,
        ),
        set_delivery(delivery, conflicted=False),
        AddRun(answer.test_run_id, answer.test_run_url, now),
        *(set_run(run, status="processing") for run in older),
    )
