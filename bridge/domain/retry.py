"""When to try again: exponential back-off with a cap, and what a failed call changes of a delivery.

The jitter comes from a salt instead of randomness, so that a plan is reproducible.
"""

from typing import Any
from zlib import crc32

from bridge.domain.build import Delivery, Registration, RegistrationState
from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.instants import MINUTE, SECOND, Duration, Instant, after
from bridge.domain.policy import Policy

LARGEST_EXPONENT = 30  # 2**30 initial delays exceed any cap; this keeps the power small

URL_LIFETIME = Duration(5 * MINUTE)
"""Assumed if a presigned URL does not contain its expiry: TestNod documents "valid for five minutes"."""


def delay_us(attempts: int, *, first_us: int, max_us: int, salt: str) -> Duration:
    """Return how long to wait after `attempts` failed attempts in a row.

    The delay doubles from `first_us` to `max_us`. Its second half is jitter that depends on `salt`, so that calls that
    failed together are not retried together.
    """
    step = min(max_us, first_us << min(max(attempts - 1, 0), LARGEST_EXPONENT))
    jitter = crc32(f"{salt}/{attempts}".encode()) / 2**32
    return Duration(step // 2 + int(step / 2 * jitter))


def delay_with_retry_after(planned: Duration, retry_after_seconds: float | None, *, max_us: Duration) -> Duration:
    """Return the longer of `planned` and the upstream's Retry-After, the latter capped at `max_us`."""
    return max(planned, Duration(min(int((retry_after_seconds or 0) * SECOND), max_us)))


def backoff_us(policy: Policy, attempts: int, salt: str) -> Duration:
    """Return the wait after `attempts` failures in a row under `[delivery]`."""
    return delay_us(attempts, first_us=policy.retry_initial_delay, max_us=policy.retry_max_delay, salt=salt)


def next_attempt_at(now: Instant, policy: Policy, attempts: int, salt: str, outcome: object) -> Instant:
    """Return when to try again after `outcome`; its Retry-After counts up to `delivery.retry_max_delay`."""
    retry_after = getattr(outcome, "retry_after_seconds", None)
    planned = backoff_us(policy, attempts, salt)
    return after(now, delay_with_retry_after(planned, retry_after, max_us=policy.retry_max_delay))


def start_give_up_clock(delivery: Delivery, now: Instant, total_outage_us: Duration) -> dict[str, int]:
    """Return the values that start the give-up clock of a delivery at its first failure; nothing if it runs."""
    if delivery.first_failure_at is not None:
        return {}
    return {"first_failure_at": now, "outage_us_at_first_failure": total_outage_us}


def attempts_after(attempts: int, health: RouteHealth) -> int:
    """Return the number of attempts after one more; in an outage it stays, because the breaker decides when to try."""
    return max(attempts, 1) if health.in_outage else attempts + 1


def back_off_register(
    delivery: Delivery, now: Instant, policy: Policy, health: RouteHealth, outcome: object = None
) -> dict[str, int]:
    """Return the new values of a delivery whose registration failed: the next one is backed off."""
    attempts = attempts_after(delivery.attempts, health)
    at = next_attempt_at(now, policy, attempts, f"register/{delivery.id}", outcome)
    if health.in_outage:
        at = min(at, after(now, policy.retry_initial_delay))
    return {"attempts": attempts, "due_at": at, **start_give_up_clock(delivery, now, health.total_outage_us)}


def failure_unreported_values(
    registration: Registration, now: Instant, policy: Policy, *, fencing_token: int
) -> dict[str, Any]:
    """Return the new values of a registration that failed and must be reported to TestNod with upload_failed.

    `upload_failed` is not called before the URL has expired and the longest PUT would have ended, unless no PUT can
    have got through: it was registered under this very fencing token, and every PUT since was rejected or not sent.
    """
    unknown = registration.put_outcome_unknown or registration.fencing_token != fencing_token
    expires_at = registration.expires_at or after(registration.registered_at or registration.requested_at, URL_LIFETIME)
    return {
        "state": RegistrationState.FAILURE_UNREPORTED,
        "attempts": 0,
        "due_at": max(now, after(expires_at, policy.max_put_duration)) if unknown else now,
        "presigned_url": None,
        "put_outcome_unknown": unknown,
    }
