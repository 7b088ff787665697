"""What is allowed but hardly meant: sentences for check-config and the start-up log.

It changes nothing and refuses nothing: that is what rules.py is for.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from bridge.domain.routing import ANY
from bridge.settings.caller_rules import is_loopback
from bridge.settings.model import CodeartsSettings, OutboundSettings, RouteSettings, Settings
from bridge.settings.rules import NEEDED, plain, storage_warnings
from bridge.settings.types import format_duration


def warnings(settings: Settings) -> list[str]:
    """Return one warning a line, each beginning with the setting's key."""
    return [
        *_routes(settings),
        *_ends(settings),
        *_identity(settings.codearts),
        *_way_out(settings.outbound),
        *_exposed(settings),
        *_unused(settings),
        *storage_warnings(settings),
        *_shared(settings),
    ]


def _routes(settings: Settings) -> Iterator[str]:
    for index, route in enumerate(settings.routes):
        earlier = next((other for other in settings.routes[:index] if _covers(other, route)), None)
        if earlier is not None:
            yield (
                f'routes[{index}]: "{route.name}" can never match: "{earlier.name}" stands before it and takes all '
                "its builds. Put the narrower route first."
            )
        elif not settings.codearts.endpoint and "*" not in route.repo:
            yield (
                f'routes[{index}].repo: "{route.name}" can never match: repositories are known from CodeArts only. '
                "Set codearts.endpoint, or route by job_id, project_id or branch."
            )


def _ends(settings: Settings) -> Iterator[str]:
    codearts, polling = settings.codearts, settings.polling
    if not codearts.endpoint:
        yield (
            "codearts.endpoint: is empty, so the end of a build cannot be polled. A run is finalized when an upload "
            f"has complete=true, or after {format_duration(polling.idle_timeout)} without a report "
            "(polling.idle_timeout)."
        )
        if settings.webhook.secret:
            yield "webhook.secret: is not used, because codearts.endpoint is empty. Set it, for a hook to look there."
    if polling.grace_period > settings.delivery.max_finalize_delay:
        yield "polling.grace_period: is longer than delivery.max_finalize_delay. Runs will be finalized late."


def _identity(codearts: CodeartsSettings) -> Iterator[str]:
    used = NEEDED[codearts.auth]
    for way, names in NEEDED.items():
        for name in names:
            if name not in used and plain(codearts, name):
                yield f'codearts.{name}: is not used, because codearts.auth is "{codearts.auth}". Set auth = "{way}".'
    if codearts.auth != "none" and not codearts.endpoint and not codearts.check_endpoint:
        yield "codearts.auth: is not used, because codearts.endpoint is empty. Set it to CodeArts Build's address."


def _way_out(outbound: OutboundSettings) -> Iterator[str]:
    if outbound.no_proxy and not outbound.http_proxy.get_secret_value():
        yield "outbound.no_proxy: is not used, because outbound.http_proxy is empty. Take it out, or name the proxy."


def _exposed(settings: Settings) -> Iterator[str]:
    for key, url in (
        ("testnod.base_url", settings.testnod.base_url),
        ("codearts.endpoint", settings.codearts.endpoint),
        ("codearts.check_endpoint", settings.codearts.check_endpoint),
        ("codearts.iam_endpoint", settings.codearts.iam_endpoint),
    ):
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield f"{key}: is plain http, so tokens can be read on the way. Use https outside of trials."
    if settings.testnod.allow_private_storage and not settings.testnod.storage_hosts:
        yield (
            "testnod.allow_private_storage: lets TestNod's answers send reports to addresses inside this network. "
            "Use it for trials, or list them in testnod.storage_hosts."
        )
    if "open" in settings.callers.auth and not is_loopback(settings.server.host):
        yield "callers.auth: is open to anybody who reaches server.host. Give callers tokens."
    server = settings.server
    in_the_clear = not (is_loopback(server.host) or server.tls_cert_file or server.behind_tls_proxy)
    if in_the_clear and "aksk" in settings.callers.auth:
        yield (
            "server.behind_tls_proxy: is false. Signatures show no key, but reports can be read on the way. "
            "Set server.tls_cert_file and tls_key_file, or behind_tls_proxy = true where a proxy in front speaks TLS."
        )


def _shared(settings: Settings) -> Iterator[str]:
    if not settings.store.url.startswith("sqlite:") and "://" not in settings.store.spool:
        yield (
            "store.spool: is a folder, and the ledger is in PostgreSQL. Right for one gateway; several need a folder "
            "that all of them share, or they miss each other's large reports."
        )


def _unused(settings: Settings) -> Iterator[str]:
    callers = settings.callers
    for key, tables, scheme in (
        ("tokens", callers.tokens, "token"),
        ("keys", callers.keys, "aksk"),
        ("users", callers.users, "iam"),
    ):
        if tables and scheme not in callers.auth:
            yield f'callers.{key}: let nobody in, because callers.auth lacks "{scheme}". Add it, or take them out.'


def _covers(earlier: RouteSettings, later: RouteSettings) -> bool:
    pairs = (
        (earlier.job_id, later.job_id),
        (earlier.project_id, later.project_id),
        (earlier.repo, later.repo),
        (earlier.branch, later.branch),
    )
    return all(all(_takes(wide, glob) for glob in narrow) for wide, narrow in pairs)


def _takes(wide: tuple[str, ...], glob: str) -> bool:
    """Tell whether `wide` surely takes all that `glob` takes: equal, everything, or a fixed word that it matches."""
    fixed = not any(sign in glob for sign in "*?[")
    return any(other in (glob, *ANY) or (fixed and fnmatchcase(glob, other)) for other in wide)
