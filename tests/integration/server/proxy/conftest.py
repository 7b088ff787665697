"""A server with nothing but the proxy, before upstreams on bare sockets."""

from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from bridge.client.credentials import StaticHeaders
from bridge.client.passthrough import UpstreamConnection
from bridge.domain.callers import AuthScheme, Caller, Credential, hash_token
from bridge.domain.routing import Route
from bridge.server.app import ANY_PATH
from bridge.server.auth.authenticator import Authenticator
from bridge.server.http.connections import ConnectionLimiter
from bridge.server.http.listener import Listener
from bridge.server.http.requests import handle_expect
from bridge.server.http.responses import handle_errors
from bridge.server.proxy.authorization import ProxyPolicy
from bridge.server.proxy.forwarder import Forwarder
from bridge.server.proxy.handler import ProxyHandler
from bridge.server.proxy.places import MAX_CALLS, MAX_UNVERIFIED
from bridge.server.proxy.report_summary import LocalReportSummaries
from bridge.server.proxy.request_target import Upstream as Service
from bridge.server.proxy.streaming import IDLE_SECONDS
from bridge.settings.model import ProxySettings
from tests.support.byte_server import ByteServer
from tests.support.ports import held_port
from tests.support.proxy_upstream import Upstream, ask

MAX_COVERAGE = 2_000_000
OUR_TOKEN = "the-bridge-itself"
JOB = "a" * 32
OTHER_JOB = "b" * 32
ROUTES = (Route(name="shop", job_id=("a*",)), Route(name="other", job_id=("b*",)))


def credential(name, *, routes=None, scopes=("proxy",), expires_at=None):
    caller = Caller(scheme=AuthScheme.TOKEN, name=name, routes=routes, scopes=frozenset(scopes))
    return Credential(hash=hash_token(f"token-of-{name}"), caller=caller, expires_at=expires_at)


CREDENTIALS = (
    credential("ci", routes=("shop",)),
    credential("anywhere"),
    credential("uploader", scopes=("upload", "status")),
    credential("of-shop", routes=("shop",), scopes=("upload",)),
    credential("ended", expires_at=0),
)


class Counted:
    def __init__(self):
        self.calls = []

        self.coverage = []

    def count_proxied(self, upstream, status):
        self.calls.append((upstream, status))

    def count_coverage_upload(self, status):
        self.coverage.append(status)


class Proxied:
    """The proxy as its callers reach it."""

    def __init__(self, upstreams, counted):
        self.url = ""
        self.upstreams = upstreams
        self.counted = counted
        self.throttled = []  # API and Retry-After, of the bridge's own account

    async def record_throttled(self, api, age_seconds, retry_after_seconds):
        assert age_seconds >= 0
        self.throttled.append((api, retry_after_seconds))

    async def ask(self, request):
        return await ask(self.url, request)


@pytest.fixture
async def start(database):
    """Return what starts a proxy; keywords change how."""
    async with AsyncExitStack() as stack:

        async def upstream():
            made = Upstream()
            port = stack.enter_context(held_port())  # where it refuses connections once it is stopped
            server = await stack.enter_async_context(ByteServer(made.serve, port=port))
            made.stop = server.stop
            made.url = server.url
            return made

        async def started(
            *,
            services=tuple(Service),
            open_to_all=False,
            account=None,
            callers=None,
            idle_seconds=IDLE_SECONDS,
            **allowed,
        ):
            upstreams = {service: await upstream() for service in services}
            passages = {
                service: await stack.enter_async_context(
                    UpstreamConnection(made.url, max_connections=MAX_CALLS + MAX_UNVERIFIED)
                )
                for service, made in upstreams.items()
            }
            counted = Counted()
            known = Authenticator(CREDENTIALS, now=lambda: 1, open_to_all=open_to_all)
            settings = ProxySettings(**allowed)
            known = callers or known
            account = account or StaticHeaders((("X-Auth-Token", OUR_TOKEN),))
            proxied = Proxied(upstreams, counted)
            proxy = ProxyHandler(
                forwarder=Forwarder(passages, account, known.is_token_of_bridge),
                authenticator=known,
                policy=ProxyPolicy(paths=settings.paths, methods=settings.methods, max_upload_bytes=MAX_COVERAGE),
                routes=ROUTES,
                summaries=LocalReportSummaries(database),
                metrics=counted,
                is_stopping=lambda: False,
                record_throttled=proxied.record_throttled,
                idle_seconds=idle_seconds,
            )
            app = web.Application(middlewares=[handle_errors])
            app.router.add_route("*", ANY_PATH, proxy.forward, expect_handler=handle_expect)
            listener = Listener(app, "127.0.0.1", 0, limiter=ConnectionLimiter(lambda _: None), shutdown_seconds=0)
            proxied.url = await listener.start()
            stack.push_async_callback(listener.close)
            return proxied

        yield started


@pytest.fixture
async def proxied(start):
    """A proxy whose callers go on as they came, before Build."""
    return await start(open_to_all=True)


@pytest.fixture
def build(proxied):
    """Where its calls arrive."""
    return proxied.upstreams[Service.BUILD]
