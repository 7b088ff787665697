"""When to try again: exponential, capped, spread out.

It knows no clock and no chance: the spread comes from a salt, so that the same question has the same answer.
"""

from typing import Any
from zlib import crc32

from bridge.domain.build import SECOND, Delivery, Registration, RegistrationState
from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.policy import Policy

LARGEST_EXPONENT = 30  # 2**30 first delays are beyond any cap; keeps the power small


def delay_us(attempts: int, *, first_us: int, max_us: int, salt: str) -> int:
    """Return how long to wait after `attempts` failed tries in a row, in microseconds.

    Doubles from `first_us` to `max_us`; the second half of each step is spread by `salt`, so that what failed
    together does not come back together.
    """
    step = min(max_us, first_us << min(max(attempts - 1, 0), LARGEST_EXPONENT))
    spread = crc32(f"{salt}/{attempts}".encode()) / 2**32
    return step // 2 + int(step / 2 * spread)


def retry_at(now: int, planned_us: int, asked_seconds: float | None, *, max_us: int) -> int:
    """Return the later of the planned try and what Retry-After asked for, the latter capped at `max_us`."""
    asked_us = min(int((asked_seconds or 0) * 1_000_000), max_us)
    return now + max(planned_us, asked_us)


# When a failed call is made again, and when an upload may be reported failed.


URL_LIVES = 300 * SECOND  # "valid for five minutes" (testnod-submission-api), where the URL itself does not say


def backoff_us(policy: Policy, attempts: int, salt: str) -> int:
    """Return the wait after `attempts` failures in a row under `[delivery]`, in microseconds."""
    return delay_us(attempts, first_us=policy.retry_initial_delay, max_us=policy.retry_max_delay, salt=salt)


def again_at(now: int, policy: Policy, attempts: int, salt: str, outcome: object) -> int:
    """Return when to try again; a Retry-After of the outcome is honoured up to `retry_max_delay`."""
    asked = getattr(outcome, "retry_after_seconds", None)
    return retry_at(now, backoff_us(policy, attempts, salt), asked, max_us=policy.retry_max_delay)


def start_give_up_clock(delivery: Delivery, now: int, total_outage_us: int) -> dict[str, int]:
    """Return what starts the give-up clock of a delivery with its first try that came to nothing."""
    return (
        {"first_failure_at": now, "outage_us_at_first_failure": total_outage_us}
        if delivery.first_failure_at is None
        else {}
    )


def next_attempt(attempts: int, health: RouteHealth) -> int:
    """Return the number of the next attempt: an outage does not count, because its gate decides when to try."""
    return max(attempts, 1) if health.in_outage else attempts + 1


def register_again(
    delivery: Delivery, now: int, policy: Policy, health: RouteHealth, outcome: object = None
) -> dict[str, int]:
    """Return what a registration that came to nothing changes of its delivery: the next one is backed off."""
    attempts = next_attempt(delivery.attempts, health)
    at = again_at(now, policy, attempts, f"register/{delivery.id}", outcome)
    if health.in_outage:
        at = min(at, now + policy.retry_initial_delay)
    return {"attempts": attempts, "due_at": at, **start_give_up_clock(delivery, now, health.total_outage_us)}


def upload_failed_owed(life: Registration, now: int, policy: Policy, *, fencing_token: int) -> dict[str, Any]:
    """Return the values of a named registration that TestNod must be told of: its upload will not come.

    `upload_failed` is not called before its URL has run out and the longest PUT would have ended, unless no PUT of it
    can have got through: it was registered under this very `fence`, and every PUT since was refused or not sent.
    """
    uncertain = life.put_outcome_unknown or life.fencing_token != fencing_token
    expires_at = life.expires_at or (life.registered_at or life.requested_at) + URL_LIVES
    return {
        "state": RegistrationState.FAILURE_UNREPORTED,
        "attempts": 0,
        "due_at": max(now, expires_at + policy.max_put_duration) if uncertain else now,
        "presigned_url": None,
        "put_outcome_unknown": uncertain,
    }
