"""What this gateway alone cannot do, while other gateways of its ledger may be able to.

Gateways of one ledger may differ: in their settings during a rolling restart, or in their way to the spool. A gateway
leaves builds that it cannot serve to the others, so that it harms only itself. On a ledger that is not shared, nothing
here has an effect.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from bridge.domain.circuit_breaker import CircuitBreaker, route_breaker
from bridge.domain.instants import SECOND, Duration, Instant, after, between

LEFT_FOR_US = Duration(60 * SECOND)
"""A build that was left to other gateways is not claimed here for this long at most: they may have gone."""

MAX_LEFT = 1_000
"""Builds that are left to others at once; more wait as if there were no other gateway."""

FIRST_PROBE_US, MAX_PROBE_US = Duration(6 * SECOND), Duration(60 * SECOND)
"""The bounds of the time between two probes with a rejected token. The first is longer than FAILING_FOR_US of the
breaker: if no other gateway has shown by then that its token works, the breaker opens."""

PROBE_SHARE = 3  # of the time since the rejection

log = structlog.get_logger(__name__)


def token_digest(route: str, token: str) -> str:
    """Return what stands for a route's project token in the ledger; the token cannot be derived from it."""
    return hmac.digest(f"bridge route {route}".encode(), token.encode(), "sha256")[:16].hex()


@dataclass(frozen=True, slots=True)
class RejectedToken:
    """A project token that TestNod has rejected."""

    digest: str
    reason: str
    since: Instant
    probe_at: Instant


@dataclass(slots=True)
class OwnFaults:
    """One object for the life of a gateway; `shared` is whether other gateways may use its ledger."""

    shared: bool = False
    wake_others: Callable[[], None] = lambda: None
    _rejected: dict[str, RejectedToken] = field(default_factory=dict)  # by route
    _left: dict[int, Instant] = field(default_factory=dict)  # ids of builds, and until when

    # -- project tokens ------------------------------------------------------------------------------------------

    def reject_token(self, route: str, digest: str, reason: str, now: Instant) -> None:
        """Remember that TestNod rejected the token of `route`."""
        known = self._rejected.get(route)
        since = known.since if known is not None and known.digest == digest else now
        pause = min(MAX_PROBE_US, max(FIRST_PROBE_US, Duration(between(since, now) // PROBE_SHARE)))
        self._rejected[route] = RejectedToken(digest, reason, since, after(now, pause))

    def accept_token(self, route: str) -> None:
        """Forget that the token of `route` was rejected."""
        if self._rejected.pop(route, None) is not None:
            self._left.clear()
            log.info("project_token_accepted", route=route)

    def rejected(self, digests: Mapping[str, str]) -> dict[str, RejectedToken]:
        """Return the rejected tokens by route; a token that a reload replaced is not among them."""
        current = self._rejected.items()
        return {route: token for route, token in current if digests.get(route) == token.digest} if self.shared else {}

    def breakers(self, digests: Mapping[str, str]) -> list[CircuitBreaker]:
        """Return what operators see of the rejected tokens: breakers that are open for this gateway alone."""
        return [
            CircuitBreaker(
                name=route_breaker(route),
                failures=1,
                opened_at=token.since,
                first_failure_at=token.since,
                reason=f'{token.reason} This is the answer to this replica\'s project_token of route "{route}", while '
                "the one of another replica works. Correct the settings of this replica. Until then it leaves the "
                "route to the others.",
                probe_at=token.probe_at,
            )
            for route, token in self.rejected(digests).items()
        ]

    # -- builds --------------------------------------------------------------------------------------------------

    def leave(self, build_id: int, now: Instant, until: Instant | None) -> bool:
        """Leave a build to others until `until`, LEFT_FOR_US at most; return whether that is possible."""
        left = self.left(now)
        if not self.shared or len(left) >= MAX_LEFT:
            return False
        latest = after(now, LEFT_FOR_US)
        self._left[build_id] = latest if until is None else min(latest, max(until, after(now, SECOND)))
        return True

    def left(self, now: Instant) -> list[int]:
        """Return the ids of the builds that this gateway does not claim now."""
        if self._left:
            self._left = {build_id: until for build_id, until in self._left.items() if until > now}
        return list(self._left)

    def forget_left(self) -> None:
        """Claim all builds again, because the settings have changed."""
        self._left.clear()


def unclaimed_routes(
    routes: Iterable[str], served: Iterable[str], rejected: Iterable[str], newest: Mapping[str, CircuitBreaker]
) -> set[str]:
    """Return which of `routes` other gateways serve and this one cannot: it lacks them, or their tokens are rejected.

    If no other gateway serves a route, its breaker is open, and its builds are claimed here to show that.
    """
    unable = (set(routes) - set(served)) | set(rejected)
    return {route for route in unable if not (breaker := newest.get(route_breaker(route))) or not breaker.is_open}
