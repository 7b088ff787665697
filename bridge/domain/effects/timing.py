"""When a failed call is made again, and when a URL is spent.

It knows no outcome but the Retry-After that some carry.
"""

from bridge.domain.backoff import delay_us, retry_at
from bridge.domain.build import SECOND, Delivery, Registration
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


def register_again(
    delivery: Delivery, now: int, policy: Policy, away_us: int, outcome: object = None
) -> dict[str, int]:
    """Return what a registration that came to nothing changes of its delivery: the next one is backed off."""
    attempts = delivery.attempts + 1
    at = again_at(now, policy, attempts, f"register/{delivery.id}", outcome)
    return {"attempts": attempts, "due_at": at, **trying(delivery, now, away_us)}


def spent_at(life: Registration, now: int, policy: Policy, *, fence: int) -> int:
    """Return when upload_failed may be called for a named registration.

    Not before its URL has run out and the longest PUT would have ended, unless no PUT of it can have got through:
    asked in this very visit, and every PUT since was refused or not sent at all.
    """
    if life.fence == fence and not life.put_uncertain:
        return now
    expires_at = life.expires_at or (life.named_at or life.asked_at) + URL_LIVES
    return max(now, expires_at + policy.max_put)
