"""The operator's choices as the rooms need them: settings in, the values of each room out.

It starts nothing and knows no room's inside.
"""

from datetime import timedelta

from bridge.client.storage import MAX_PUT_SECONDS
from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.callers import Caller, Credential, Scheme
from bridge.domain.policy import Policy
from bridge.domain.routing import OnInvalid, Route
from bridge.server.callers import Callers
from bridge.server.limits import Limits
from bridge.settings import Settings
from bridge.settings.model import RouteSettings


def microseconds(duration: timedelta) -> int:
    """Return a duration as the core and the ledger count it."""
    return int(duration / timedelta(microseconds=1))


def to_route(route: RouteSettings, settings: Settings) -> Route:
    """Return one `[[routes]]` table as the core knows it."""
    return Route(
        name=route.name,
        tags=route.tags,
        job_id=route.job_id,
        project_id=route.project_id,
        repo=route.repo,
        branch=route.branch,
        build_id=route.build_id,
        run_url=route.run_url,
        on_invalid=OnInvalid(route.on_invalid or settings.server.on_invalid),
        repair=route.repair,
        strip=route.strip,
    )


def to_policy(settings: Settings) -> Policy:
    """Return what plan.py needs of `[polling]`, `[delivery]` and the routes."""
    polling, delivery = settings.polling, settings.delivery
    return Policy(
        asks_codearts=bool(settings.codearts.endpoint),
        routes=tuple(to_route(route, settings) for route in settings.routes),
        poll_first=microseconds(polling.first),
        poll_min=microseconds(polling.min),
        poll_max=microseconds(polling.max),
        settle=microseconds(polling.settle),
        idle_end=microseconds(polling.idle_end),
        unknown_for=microseconds(polling.unknown_for),
        max_age=microseconds(polling.max_age),
        confirm_for=microseconds(polling.confirm_for),
        per_build=delivery.per_build,
        give_up_after=microseconds(delivery.give_up_after),
        hold_run=microseconds(delivery.hold_run),
        first_delay=microseconds(delivery.first_delay),
        max_delay=microseconds(delivery.max_delay),
        max_put=MAX_PUT_SECONDS * SECOND,
    )


def to_limits(settings: Settings) -> Limits:
    """Return what one upload may be."""
    return Limits(
        max_report_size=settings.server.max_report_size,
        max_request_size=settings.server.max_request_size,
        max_files=settings.server.max_files,
    )


def to_callers(settings: Settings, clock: Clock) -> Callers:
    """Return who may come in, and how each is known."""
    credentials = [
        Credential(
            hash=token.digest,
            caller=Caller(
                scheme=Scheme.TOKEN, name=token.name, routes=token.routes or None, scopes=frozenset(token.scopes)
            ),
            not_after=int(token.not_after.timestamp() * SECOND) if token.not_after else None,
        )
        for token in settings.callers.tokens
    ]
    auth = settings.callers.auth
    return Callers(credentials if "token" in auth else [], now=clock.now, open_to_all="open" in auth)
