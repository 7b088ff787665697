"""What is in force: all that the settings decide, made at once and replaced at once.

It starts nothing. Whoever has begun something with one value ends it with that; no room ever sees half of two.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from bridge.app.config_mapping import (
    microseconds,
    to_account,
    to_allowance,
    to_callers,
    to_endpoints,
    to_limits,
    to_policy,
)
from bridge.app.resources import Resources
from bridge.client.codearts import CodeArts, CodeArtsCheck, CodeArtsReports
from bridge.client.credentials import Credentials
from bridge.client.iam import Iam
from bridge.client.presigned_put import PresignedUploader
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.client.testnod import TestNod
from bridge.server.admin.config import AdminConfig
from bridge.server.auth.authenticator import Authenticator
from bridge.server.auth.iam_tokens import Verdicts
from bridge.server.build_status import BuildStatusHandler
from bridge.server.handlers import Handlers
from bridge.server.http.forwarded import read_networks
from bridge.server.proxy.forwarder import Forwarder
from bridge.server.proxy.handler import ProxyHandler
from bridge.server.proxy.report_summary import LocalReportSummaries
from bridge.server.upload.handler import UploadHandler
from bridge.server.upload.resend import QuarantineResender
from bridge.server.webhook import WebhookHandler
from bridge.settings import Settings
from bridge.store.retention import routes_in_use
from bridge.worker.call_executor import UpstreamCallExecutor
from bridge.worker.clients import UpstreamClients
from bridge.worker.reconcile import ReconcilerContext
from bridge.worker.worker_config import WorkerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ActiveConfig:
    """The settings, and what the rooms go by because of them."""

    settings: Settings
    counter: Handlers
    operators: AdminConfig
    shift: WorkerConfig
    account: Credentials
    verdicts: Verdicts  # of IAM, on callers' tokens
    places: asyncio.Semaphore  # for calls to TestNod and its storage


async def build_active_config(
    settings: Settings, ground: Resources, before: ActiveConfig | None = None
) -> ActiveConfig:
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
    return ActiveConfig(
        settings=settings,
        counter=await _counter(settings, ground, callers, account, shift),
        operators=_operators(settings, ground, shift),
        shift=shift,
        account=account,
        verdicts=verdicts,
        places=places,
    )


async def _shift(
    settings: Settings, ground: Resources, account: Credentials, places: asyncio.Semaphore
) -> WorkerConfig:
    sessions, endpoint, check = ground.sessions, settings.codearts.endpoint, settings.codearts.check_endpoint
    rules = StorageUrlPolicy(hosts=settings.testnod.storage_hosts, allow_private=settings.testnod.allow_private_storage)
    upstreams = UpstreamClients(
        testnod=TestNod(sessions.testnod, settings.testnod.base_url),
        storage=PresignedUploader(sessions.storage, rules),
        codearts=CodeArts(sessions.codearts, endpoint, account) if endpoint else None,
        check=CodeArtsCheck(sessions.check, check, account) if check else None,
        reports=CodeArtsReports(sessions.codearts, endpoint, account) if endpoint else None,
        project_tokens={route.name: route.project_token for route in settings.routes},
    )
    calls = UpstreamCallExecutor(
        upstreams,
        ground.spool,
        ground.archive,
        ground.metrics,
        tails=ground.tails,
        beside=ground.beside,
        places=places,
        polls_a_second=settings.polling.rate,
    )
    desk = ReconcilerContext(
        database=ground.database,
        clock=ground.clock,
        policy=to_policy(settings),
        lease_us=microseconds(settings.delivery.lease),
        stopping=ground.stopping,
        trust=ground.trust.verdict,
    )
    lanes = await ground.database.read(routes_in_use) | {route.name for route in settings.routes}
    return WorkerConfig(desk=desk, calls=calls, upstreams=upstreams, lanes=tuple(sorted(lanes)))


async def _counter(
    settings: Settings, ground: Resources, callers: Authenticator, account: Credentials, shift: WorkerConfig
) -> Handlers:
    intake = UploadHandler(
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
    return Handlers(
        intake=intake,
        status=BuildStatusHandler(database=ground.database, callers=callers),
        hook=WebhookHandler([secret.get_secret_value() for secret in settings.hook.secret], ground.look),
        proxy=await _proxy(settings, ground, callers, account, shift) if settings.proxy.enabled else None,
        trusted_proxies=read_networks(settings.server.trusted_proxies),
    )


async def _proxy(
    settings: Settings, ground: Resources, callers: Authenticator, account: Credentials, shift: WorkerConfig
) -> ProxyHandler:
    passages = {upstream: await ground.passages.to(endpoint) for upstream, endpoint in to_endpoints(settings).items()}
    return ProxyHandler(
        asking=Forwarder(passages, account, callers.is_token_of_bridge, ground.via),
        callers=callers,
        allowance=to_allowance(settings),
        routes=shift.desk.policy.routes,
        summaries=LocalReportSummaries(ground.database),
        observe=ground.metrics,
        is_stopping=lambda: ground.readiness.draining,
        places=ground.places,
    )


def _operators(settings: Settings, ground: Resources, shift: WorkerConfig) -> AdminConfig:
    sending = QuarantineResender(
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
    return AdminConfig(
        tokens=tokens,
        codearts=shift.upstreams.codearts,
        sending=sending,
        hold_run_us=shift.desk.policy.hold_run,
    )
