"""Maps `[[notices]]` to the targets of the notice sender, and opens the sessions that it sends with."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from hashlib import sha256
from urllib.parse import urlsplit

from bridge.client.notices import BLOCKED, NoticeClient, NoticeSink
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.session import GuardedSession
from bridge.domain.notices import NoticeFilter, Subscriptions, is_inside
from bridge.domain.text_format import is_web_address
from bridge.protocols.notices import NoticeFormat
from bridge.settings import Settings
from bridge.settings.caller_rules import is_loopback
from bridge.settings.notice_rules import own_network
from bridge.worker.notices import NoticeConfig

WILDCARDS = frozenset({"0.0.0.0", "::"})
"""Addresses to listen on that name no machine."""


def to_notice_sinks(settings: Settings) -> dict[str, NoticeSink]:
    """Return the targets by their ids, one for each URL; the first table with a URL names it."""
    inside, sinks = own_network(settings.outbound), dict[str, NoticeSink]()
    for index, notice in enumerate(settings.notices):
        url = notice.url.get_secret_value()
        sink = NoticeSink(
            id=_id_of(url),
            label=f"notices[{index}] ({urlsplit(url).hostname})",
            url=notice.url,
            format=NoticeFormat(notice.format),
            secret=notice.secret,
            inside=is_inside(url, inside),
        )
        sinks.setdefault(sink.id, sink)
    return sinks


def _id_of(url: str) -> str:
    return sha256(url.encode()).hexdigest()[:32]


def to_notice_config(settings: Settings, environ: Mapping[str, str]) -> NoticeConfig:
    """Return which events are sent where. `BRIDGE_ADMIN_URL` in `environ` is the address of the console, if set."""
    filters: dict[str, tuple[NoticeFilter, ...]] = {}
    for notice in settings.notices:
        target = _id_of(notice.url.get_secret_value())
        wanted = NoticeFilter(kinds=frozenset(notice.events), routes=frozenset(notice.routes))
        filters[target] = (*filters.get(target, ()), wanted)
    return NoticeConfig(
        sinks=to_notice_sinks(settings),
        subscriptions=Subscriptions(filters=tuple(filters.items())),
        routes=frozenset(route.name for route in settings.routes),
        console_url=_console_url(settings, environ),
    )


def _console_url(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the address of the console for people on other machines; empty if none is known."""
    if url := environ.get("BRIDGE_ADMIN_URL", "").rstrip("/"):
        return url if is_web_address(url) else ""
    host, port = settings.admin.host, settings.admin.port
    if is_loopback(host) or host in WILDCARDS or not port:
        return ""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def open_notice_client(outbound: OutboundProxy, stack: AsyncExitStack) -> NoticeClient:
    """Open the sessions for notices, until `stack` is closed."""
    public = GuardedSession("notices", public_only=True, blocked=BLOCKED, outbound_proxy=outbound)
    inside = GuardedSession("notices", outbound_proxy=outbound)
    return NoticeClient(public=await stack.enter_async_context(public), inside=await stack.enter_async_context(inside))
