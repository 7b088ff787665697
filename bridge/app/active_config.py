"""What a reload replaces: everything that follows from the settings, built at once and replaced at once.

No component sees a mix of old and new settings: what began with one configuration ends with it.
"""

import os
from collections import OrderedDict
from functools import partial

from bridge.app.config_mapping import (
    microseconds,
    to_admin_access,
    to_authenticator,
    to_credential_text,
    to_credentials,
    to_endpoints,
    to_policy,
    to_project_tokens,
    to_proxy_policy,
    to_upload_limits,
)
from bridge.app.notices import to_notice_config
from bridge.app.resources import Resources
from bridge.client.codearts import CodeArts, CodeArtsCheck, CodeArtsReports
from bridge.client.credentials import Credentials
from bridge.client.iam import Iam
from bridge.client.presigned_put import PresignedUploader
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.client.testnod import TestNod
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import SECOND, Duration, after
from bridge.domain.notices import Subscriptions
from bridge.domain.request_rate import Api
from bridge.server.auth.authenticator import Authenticator
from bridge.server.auth.iam_tokens import Verdicts
from bridge.server.build_status import BuildStatusHandler
from bridge.server.config import ServerConfig
from bridge.server.http.requests import read_networks
from bridge.server.proxy.forwarder import Forwarder
from bridge.server.proxy.handler import ProxyHandler
from bridge.server.proxy.report_summary import LocalReportSummaries
from bridge.server.submission.api import SubmissionHandler
from bridge.server.submission.storage import Storage
from bridge.server.upload.handler import UploadHandler
from bridge.server.upload.resender import QuarantineResender
from bridge.server.webhook import WebhookHandler
from bridge.settings import Settings
from bridge.store.retention import routes_in_use
from bridge.store.signature_uses import record_signature_uses
from bridge.values import dataclass
from bridge.worker.call_executor import UpstreamCallExecutor
from bridge.worker.config import UpstreamClients, WorkerConfig
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.notices import NoticeConfig
from bridge.worker.request_rates import RequestRates


@dataclass(frozen=True, kw_only=True, slots=True)
class ActiveConfig:
    """The settings, what server and worker use because of them, and what the next reload may carry over."""

    settings: Settings
    server: ServerConfig
    worker: WorkerConfig
    notices: NoticeConfig
    credentials: Credentials  # of the bridge at CodeArts, with its cached token or rejection
    iam_verdicts: Verdicts  # on callers' tokens
    delivery_slots: DeliverySlots  # for calls to TestNod and its storage


async def build_active_config(
    settings: Settings, resources: Resources, before: ActiveConfig | None = None
) -> ActiveConfig:
    """Return the configuration for `settings`; raise SettingsError if it cannot be built.

    If the relevant settings equal those of `before`, cached tokens, rejections and verdicts are carried over.
    """
    codearts = settings.codearts
    iam = Iam(resources.sessions["iam"], codearts.iam_url) if codearts.iam_url else None
    iam_verdicts: Verdicts = OrderedDict()
    credentials, delivery_slots = None, None
    if before is not None:
        if before.settings.codearts.iam_url == codearts.iam_url:
            iam_verdicts = before.iam_verdicts
        if before.settings.codearts == codearts:
            credentials = before.credentials
        if before.settings.delivery.concurrency == settings.delivery.concurrency:
            delivery_slots = before.delivery_slots
    credentials = credentials or to_credentials(settings, iam, resources.clock)
    delivery_slots = delivery_slots or DeliverySlots(settings.delivery.concurrency)
    authenticator = to_authenticator(
        settings,
        iam,
        resources.clock,
        lockout=resources.lockout,
        record_use=partial(resources.database.write, record_signature_uses),
        iam_verdicts=iam_verdicts,
    )
    notices = to_notice_config(settings, os.environ)
    worker = await _worker_config(settings, resources, credentials, delivery_slots, notices.subscriptions)
    return ActiveConfig(
        settings=settings,
        server=await _server_config(settings, resources, authenticator, credentials, worker),
        worker=worker,
        notices=notices,
        credentials=credentials,
        iam_verdicts=iam_verdicts,
        delivery_slots=delivery_slots,
    )


async def _worker_config(
    settings: Settings,
    resources: Resources,
    credentials: Credentials,
    delivery_slots: DeliverySlots,
    subscriptions: Subscriptions,
) -> WorkerConfig:
    sessions, database, policy = resources.sessions, resources.database, to_policy(settings)
    endpoint, check_endpoint = settings.codearts.endpoint, settings.codearts.check_endpoint
    url_policy = StorageUrlPolicy(
        hosts=settings.testnod.storage_hosts, allow_private=settings.testnod.allow_private_storage
    )
    clients = UpstreamClients(
        testnod=TestNod(sessions["testnod"], settings.testnod.base_url),
        storage=PresignedUploader(sessions["storage"], url_policy),
        codearts=CodeArts(sessions["codearts"], endpoint, credentials) if endpoint else None,
        check=CodeArtsCheck(sessions["check"], check_endpoint, credentials) if check_endpoint else None,
        reports=CodeArtsReports(sessions["codearts"], endpoint, credentials) if endpoint else None,
        project_tokens={route.name: route.project_token for route in settings.routes},
        codearts_credentials=to_credential_text(settings),
    )
    account = clients.credential_digests[CODEARTS]
    rates = RequestRates(database, account, settings.polling.requests_per_minute, resources.metrics)
    if clients.codearts is not None:
        resources.metrics.set_rates(dict.fromkeys(Api, rates.highest))
    executor = UpstreamCallExecutor(
        clients,
        resources.spool,
        resources.archive,
        resources.metrics,
        background=resources.background,
        delivery_slots=delivery_slots,
        rates=rates,
        tracer=resources.tracer,
    )
    routes = await database.read(routes_in_use) | {route.name for route in settings.routes}
    return WorkerConfig(
        database=database,
        clock=resources.clock,
        stopping=resources.stopping,
        policy=policy,
        lease_us=microseconds(settings.delivery.lease_duration),
        routes=tuple(sorted(routes)),
        clients=clients,
        executor=executor,
        clock_verdict=resources.clock_check.check,
        own_faults=resources.own_faults,
        recent_calls=resources.recent_calls,
        rates=rates,
        poller=resources.poller,
        notices=subscriptions,
    )


async def _server_config(
    settings: Settings,
    resources: Resources,
    authenticator: Authenticator,
    credentials: Credentials,
    worker: WorkerConfig,
) -> ServerConfig:
    readiness, policy, limits = resources.readiness, worker.policy, to_upload_limits(settings)
    proxy = None
    if settings.proxy.enabled:
        proxy = await _proxy(settings, resources, authenticator, credentials, worker)
    return ServerConfig(
        upload=UploadHandler(
            routes=policy.routes,
            limits=limits,
            authenticator=authenticator,
            spool=resources.spool,
            pool=resources.validation,
            quarantine=resources.quarantine,
            accept=resources.accept,
            admit=readiness.require_ready,
            reserve_space=readiness.space.reserve,
            metrics=resources.metrics,
            unproven=resources.unproven_bodies,
            memory=resources.decompression_memory,
        ),
        submission=SubmissionHandler(
            database=resources.database,
            tokens=to_project_tokens(settings, policy.routes, resources.clock),
            accept=resources.accept,
            admit=readiness.require_ready,
            trusted_proxies=read_networks(settings.server.trusted_proxies),
            behind_tls_proxy=settings.server.behind_tls_proxy,
        ),
        storage=Storage(
            database=resources.database,
            routes=policy.routes,
            limits=limits,
            spool=resources.spool,
            pool=resources.validation,
            quarantine=resources.quarantine,
            accept=resources.accept,
            admit=readiness.require_ready,
            reserve_space=readiness.space.reserve,
            metrics=resources.metrics,
            memory=resources.decompression_memory,
        ),
        build_status=BuildStatusHandler(database=resources.database, authenticator=authenticator),
        webhook=WebhookHandler(
            [secret.get_secret_value() for secret in settings.webhook.secret], resources.request_poll
        ),
        proxy=proxy,
        trusted_proxies=read_networks(settings.server.trusted_proxies),
        access=to_admin_access(settings),
        routes=policy.routes,
        resender=QuarantineResender(
            database=resources.database,
            spool=resources.spool,
            pool=resources.validation,
            quarantine=resources.quarantine,
            routes=policy.routes,
            limits=limits,
            accept=resources.accept,
            admit=readiness.require_ready,
            reserve_space=readiness.space.reserve,
        ),
        codearts=worker.clients.codearts,
        max_finalize_delay_us=policy.max_finalize_delay,
    )


async def _proxy(
    settings: Settings,
    resources: Resources,
    authenticator: Authenticator,
    credentials: Credentials,
    worker: WorkerConfig,
) -> ProxyHandler:
    async def record_throttled(api: Api, age_seconds: float, retry_after_seconds: float | None) -> None:
        sent_at = after(resources.database.now(), Duration(-int(age_seconds * SECOND)))
        if worker.rates is not None:
            await worker.rates.record_throttled(api, sent_at, retry_after_seconds)

    endpoints = to_endpoints(settings).items()
    connections = {upstream: await resources.proxy_connections.open(endpoint) for upstream, endpoint in endpoints}
    return ProxyHandler(
        forwarder=Forwarder(connections, credentials, authenticator.is_token_of_bridge, resources.via),
        authenticator=authenticator,
        policy=to_proxy_policy(settings),
        routes=worker.policy.routes,
        record_throttled=record_throttled,
        summaries=LocalReportSummaries(resources.database),
        metrics=resources.metrics,
        is_stopping=lambda: resources.readiness.draining,
        places=resources.call_places,
    )
