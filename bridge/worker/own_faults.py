"""What this gateway alone cannot do, while other gateways of its ledger may be able to.

Gateways of one ledger may differ: in their settings during a rolling restart, or in their way to the spool. A gateway
leaves builds that it cannot serve to the others, so that it harms only itself. On a ledger that is not shared, nothing
here has an effect.
"""

import hmac
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import field

import structlog

from bridge.domain.circuit_breaker import CODEARTS, CircuitBreaker, route_breaker
from bridge.domain.instants import SECOND, Duration, Instant, after, between
from bridge.values import dataclass

LEFT_FOR_US = Duration(60 * SECOND)
"""A build that was left to other gateways is not claimed here for this long at most: they may have gone."""

MAX_LEFT = 1_000
"""Builds that are left to others at once; more wait as if there were no other gateway."""

FIRST_PROBE_US, MAX_PROBE_US = Duration(6 * SECOND), Duration(60 * SECOND)
"""The bounds of the time between two probes with a rejected token. The first is longer than FAILING_FOR_US of the
breaker: if no other gateway has shown by then that its token works, the breaker opens."""

PROBE_SHARE = 3  # of the time since the rejection

log = structlog.get_logger(__name__)


def credential_digest(breaker: str, credential: str) -> str:
    """Return what stands in the ledger for the credential of an upstream; the credential cannot be derived from it."""
    return hmac.digest(f"bridge {breaker}".encode(), credential.encode(), "sha256")[:16].hex()


@dataclass(frozen=True, slots=True)
class RejectedCredential:
    """A project token that TestNod has rejected, or credentials that CodeArts has."""

    digest: str
    reason: str
    since: Instant
    probe_at: Instant

    def probe_is_due(self, now: Instant) -> bool:
        """Return whether the credential may be tried again; a later time is of a clock that was set back since."""
        return not now < self.probe_at <= after(now, MAX_PROBE_US)


@dataclass(frozen=True, slots=True)
class _LeftBuild:
    """Since when a build has been left to others, and until when it is not claimed here."""

    since: Instant
    until: Instant


@dataclass(slots=True)
class OwnFaults:
    """One object for the life of a gateway; `shared` is whether other gateways may use its ledger."""

    shared: bool = False
    wake_others: Callable[[], None] = lambda: None
    _rejected: dict[str, RejectedCredential] = field(default_factory=dict)  # by breaker
    _left: dict[int, "_LeftBuild"] = field(default_factory=dict)  # by id; also those of the last minute

    # -- credentials ---------------------------------------------------------------------------------------------
    # `digests` stand for the current credentials, by breaker: what a reload has replaced is not rejected any more.

    def reject(self, breaker: str, digest: str, reason: str, now: Instant) -> None:
        """Remember that an upstream rejected a credential."""
        known = self._rejected.get(breaker)
        since = known.since if known is not None and known.digest == digest else now
        pause = min(MAX_PROBE_US, max(FIRST_PROBE_US, Duration(between(since, now) // PROBE_SHARE)))
        self._rejected[breaker] = RejectedCredential(digest, reason, since, after(now, pause))

    def accept(self, breaker: str) -> None:
        """Forget that the credential for a breaker was rejected."""
        if self._rejected.pop(breaker, None) is not None:
            self._left.clear()
            log.info("credential_accepted", upstream=breaker)

    def rejected(self, digests: Mapping[str, str]) -> dict[str, RejectedCredential]:
        """Return the rejected credentials by breaker."""
        current = self._rejected.items()
        return {name: found for name, found in current if digests.get(name) == found.digest} if self.shared else {}

    def unusable(self, digests: Mapping[str, str], now: Instant) -> frozenset[str]:
        """Return the breakers whose upstreams must not be called with the rejected credentials at `now`.

        CodeArts may be called once a probe is due: only a build's own call can show that it accepts them again.
        """
        rejected = self.rejected(digests).items()
        return frozenset(name for name, found in rejected if name != CODEARTS or not found.probe_is_due(now))

    def breakers(self, digests: Mapping[str, str]) -> list[CircuitBreaker]:
        """Return what operators see of the rejected credentials: breakers that are open for this gateway alone."""
        return [
            CircuitBreaker(
                name=name,
                failures=1,
                opened_at=found.since,
                first_failure_at=found.since,
                reason=f"{found.reason} This is the answer to {_shown(name)}, while another replica's works. "
                "Correct the settings of this replica. Until then it leaves such builds to the others.",
                probe_at=found.probe_at,
            )
            for name, found in self.rejected(digests).items()
        ]

    # -- builds --------------------------------------------------------------------------------------------------

    def leave(self, build_id: int, now: Instant, until: Instant | None) -> bool:
        """Leave a build to others until `until`, LEFT_FOR_US at most; return whether that is possible."""
        left = self.left(now)
        if not self.shared or len(left) >= MAX_LEFT:
            return False
        before = self._left.get(build_id)
        if len(self._left) >= MAX_LEFT:
            self._left = {each: self._left[each] for each in left}
        latest = after(now, LEFT_FOR_US)
        until = latest if until is None else min(latest, max(until, after(now, SECOND)))
        self._left[build_id] = _LeftBuild(since=before.since if before else now, until=until)
        return True

    def have_others_had_time(self, build_id: int, now: Instant) -> bool:
        """Return whether a build was left to others for LEFT_FOR_US, and none has gone on with it."""
        self.left(now)
        known = self._left.get(build_id)
        return known is not None and after(known.since, LEFT_FOR_US) <= now

    def left(self, now: Instant) -> list[int]:
        """Return the ids of the builds that this gateway does not claim now."""
        if self._left:  # one that is left for longer was left before the clock was set back
            earliest, latest = after(now, Duration(-LEFT_FOR_US)), after(now, LEFT_FOR_US)
            self._left = {build_id: left for build_id, left in self._left.items() if earliest < left.until <= latest}
        return [build_id for build_id, left in self._left.items() if now < left.until]

    def forget_left(self) -> None:
        """Claim all builds again, because the settings have changed."""
        self._left.clear()


def _shown(breaker: str) -> str:
    if breaker == CODEARTS:
        return "this replica's credentials at CodeArts"
    return f'this replica\'s project_token of route "{breaker.removeprefix(route_breaker(""))}"'


def unclaimed_routes(
    routes: Iterable[str], served: Iterable[str], rejected: Container[str], newest: Mapping[str, CircuitBreaker]
) -> set[str]:
    """Return which of `routes` other gateways serve and this one cannot: it lacks them, or their tokens are rejected.

    `rejected` are breakers. If no other gateway serves a route, its breaker is open, and its builds are claimed here to
    show that.
    """
    known = set(served)
    unable = {route: route_breaker(route) for route in routes if route not in known or route_breaker(route) in rejected}
    return {route for route, name in unable.items() if name not in newest or not newest[name].is_open}
