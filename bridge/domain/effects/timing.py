"""When a failed call is made again, and when an upload may be reported failed."""

from typing import Any

from bridge.domain.backoff import delay_us, retry_at
from bridge.domain.build import SECOND, Delivery, Registration, RegistrationState
from bridge.domain.gates import RouteHealth
from bridge.domain.policy import Policy

URL_LIVES = 300 * SECOND  # "valid for five minutes" (testnod-submission-api), where the URL itself does not say


def backoff_us(policy: Policy, attempts: int, salt: str) -> int:
    """Return the wait after `attempts` failures in a row under `[delivery]`, in microseconds."""
    return delay_us(attempts, first_us=policy.first_delay, max_us=policy.max_delay, salt=salt)


def again_at(now: int, policy: Policy, attempts: int, salt: str, outcome: object) -> int:
    """Return when to try again; a Retry-After of the outcome is honoured up to `max_delay`."""
    asked = getattr(outcome, "retry_after_seconds", None)
    return retry_at(now, backoff_us(policy, attempts, salt), asked, max_us=policy.max_delay)


def trying(delivery: Delivery, now: int, away_us: int) -> dict[str, int]:
    """Return what starts the give-up clock of a delivery with its first try that came to nothing."""
    return {"trying_since": now, "trying_away_us": away_us} if delivery.trying_since is None else {}


def next_attempt(attempts: int, health: RouteHealth) -> int:
    """Return the number of the next attempt: an outage does not count, because its gate decides when to try."""
    return max(attempts, 1) if health.is_away else attempts + 1


def register_again(
    delivery: Delivery, now: int, policy: Policy, health: RouteHealth, outcome: object = None
) -> dict[str, int]:
    """Return what a registration that came to nothing changes of its delivery: the next one is backed off."""
    attempts = next_attempt(delivery.attempts, health)
    at = again_at(now, policy, attempts, f"register/{delivery.id}", outcome)
    if health.is_away:
        at = min(at, now + policy.first_delay)
    return {"attempts": attempts, "due_at": at, **trying(delivery, now, health.away_us)}


def failed_owed(life: Registration, now: int, policy: Policy, *, fence: int) -> dict[str, Any]:
    """Return the values of a named registration that TestNod must be told of: its upload will not come.

    `upload_failed` is not called before its URL has run out and the longest PUT would have ended, unless no PUT of it
    can have got through: it was registered under this very `fence`, and every PUT since was refused or not sent.
    """
    uncertain = life.put_uncertain or life.fence != fence
    expires_at = life.expires_at or (life.named_at or life.asked_at) + URL_LIVES
    return {
        "state": RegistrationState.FAILED_OWED,
        "attempts": 0,
        "due_at": max(now, expires_at + policy.max_put) if uncertain else now,
        "presigned_url": None,
        "put_uncertain": uncertain,
    }
