"""What is in force: all that the settings decide, made at once and replaced at once.

It starts nothing. Whoever has begun something with one value ends it with that; no room ever sees half of two.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from bridge.client.account import Account
from bridge.client.codearts import CodeArts
from bridge.client.codearts_check import CodeArtsCheck
from bridge.client.codearts_reports import CodeArtsReports
from bridge.client.guard import StorageRules
from bridge.client.iam import Iam
from bridge.client.storage import Storage
from bridge.client.testnod import TestNod
from bridge.ground import Ground
from bridge.server.admin.operators import Operators
from bridge.server.callers.callers import Callers
from bridge.server.callers.iam_tokens import Verdicts
from bridge.server.counter import Counter
from bridge.server.hook import Hook
from bridge.server.http.forwarded import read_networks
from bridge.server.proxy.asking import Asking
from bridge.server.proxy.overheard import Overheard
from bridge.server.proxy.proxy import Proxy
from bridge.server.proxy.summary import OwnSummaries
from bridge.server.status import Status
from bridge.server.upload.intake import Intake
from bridge.server.upload.sending import Sending
from bridge.settings import Settings
from bridge.store.keeping import pinned_routes
from bridge.wiring import (
    microseconds,
    to_account,
    to_allowance,
    to_callers,
    to_endpoints,
    to_limits,
    to_policy,
    to_subjects,
)
from bridge.worker.calls import Calls
from bridge.worker.shift import Shift
from bridge.worker.upstreams import Upstreams
from bridge.worker.visit import Desk


@dataclass(frozen=True, kw_only=True, slots=True)
class InForce:
    """The settings, and what the rooms go by because of them."""

    settings: Settings
    counter: Counter
    operators: Operators
    shift: Shift
    account: Account
    verdicts: Verdicts  # of IAM, on callers' tokens
    places: asyncio.Semaphore  # for calls to TestNod and its storage


async def put_together(settings: Settings, ground: Ground, before: InForce | None = None) -> InForce:
    """Return what `settings` put in force after `before`; raise SettingsError, and nothing has changed.

    What is known of credentials that stay the same stays known: tokens, refusals, and IAM's verdicts.
    """
    codearts = settings.codearts
    same_iam = before is not None and before.settings.codearts.iam_url == codearts.iam_url
    verdicts: Verdicts = before.verdicts if before is not None and same_iam else OrderedDict()
    iam = Iam(ground.sessions.iam, codearts.iam_url) if codearts.iam_url else None
    same_account = before is not None and before.settings.codearts == codearts
    account = before.account if before is not None and same_account else to_account(settings, iam, ground.clock)
    same_places = before is not None and before.settings.delivery.concurrency == settings.delivery.concurrency
    places = before.places if before is not None and same_places else asyncio.Semaphore(settings.delivery.concurrency)
    callers = to_callers(settings, iam, ground.clock, signed=ground.signed, good=verdicts)
    shift = await _shift(settings, ground, account, places)
    return InForce(
        settings=settings,
        counter=await _counter(settings, ground, callers, account, shift),
        operators=_operators(settings, ground, shift),
        shift=shift,
        account=account,
        verdicts=verdicts,
        places=places,
    )


async def _shift(settings: Settings, ground: Ground, account: Account, places: asyncio.Semaphore) -> Shift:
    sessions, endpoint, check = ground.sessions, settings.codearts.endpoint, settings.codearts.check_endpoint
    rules = StorageRules(hosts=settings.testnod.storage_hosts, allow_private=settings.testnod.allow_private_storage)
    upstreams = Upstreams(
        testnod=TestNod(sessions.testnod, settings.testnod.base_url),
        storage=Storage(sessions.storage, rules),
        codearts=CodeArts(sessions.codearts, endpoint, account) if endpoint else None,
        check=CodeArtsCheck(sessions.check, check, account) if check else None,
        reports=CodeArtsReports(sessions.codearts, endpoint, account) if endpoint else None,
        project_tokens={route.name: route.project_token for route in settings.routes},
    )
    calls = Calls(
        upstreams,
        ground.spool,
        ground.archive,
        ground.metrics,
        tails=ground.tails,
        beside=ground.beside,
        places=places,
        polls_a_second=settings.polling.rate,
    )
    desk = Desk(
        database=ground.database,
        clock=ground.clock,
        policy=to_policy(settings),
        lease_us=microseconds(settings.delivery.lease),
        stopping=ground.stopping,
        trust=ground.trust.verdict,
    )
    lanes = await ground.database.read(pinned_routes) | {route.name for route in settings.routes}
    return Shift(desk=desk, calls=calls, upstreams=upstreams, lanes=tuple(sorted(lanes)))


async def _counter(settings: Settings, ground: Ground, callers: Callers, account: Account, shift: Shift) -> Counter:
    intake = Intake(
        routes=shift.desk.policy.routes,
        limits=to_limits(settings),
        callers=callers,
        spool=ground.spool,
        checker=ground.checker,
        quarantine=ground.quarantine,
        accept=ground.accept,
        admit=ground.readiness.admit,
        room=ground.readiness.space.take,
        observe=ground.metrics,
    )
    return Counter(
        intake=intake,
        status=Status(database=ground.database, callers=callers),
        hook=Hook([secret.get_secret_value() for secret in settings.hook.secret], ground.look),
        proxy=await _proxy(settings, ground, callers, account, shift) if settings.proxy.enabled else None,
        trusted_proxies=read_networks(settings.server.trusted_proxies),
    )


async def _proxy(settings: Settings, ground: Ground, callers: Callers, account: Account, shift: Shift) -> Proxy:
    passages = {upstream: await ground.passages.to(endpoint) for upstream, endpoint in to_endpoints(settings).items()}
    return Proxy(
        asking=Asking(passages, account, callers.is_token_of_bridge, ground.via),
        callers=callers,
        allowance=to_allowance(settings),
        routes=shift.desk.policy.routes,
        overheard=Overheard(ground.database, subjects=to_subjects(shift.desk.policy)),
        summaries=OwnSummaries(ground.database),
        observe=ground.metrics,
        is_stopping=lambda: ground.readiness.draining,
        places=ground.places,
    )


def _operators(settings: Settings, ground: Ground, shift: Shift) -> Operators:
    sending = Sending(
        database=ground.database,
        spool=ground.spool,
        checker=ground.checker,
        quarantine=ground.quarantine,
        routes=shift.desk.policy.routes,
        limits=to_limits(settings),
        accept=ground.accept,
        admit=ground.readiness.admit,
        room=ground.readiness.space.take,
    )
    tokens = tuple(token.get_secret_value() for token in settings.admin.token)
    return Operators(
        tokens=tokens,
        codearts=shift.upstreams.codearts,
        sending=sending,
        hold_run_us=shift.desk.policy.hold_run,
    )
