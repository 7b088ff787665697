"""Warnings: settings that are valid but probably not intended, for check-config and the log at start-up."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from bridge.domain.routing import ANY
from bridge.domain.text_format import counted
from bridge.settings.caller_rules import is_loopback
from bridge.settings.glob_rules import glob_warnings
from bridge.settings.model import (
    CallersSettings,
    CodeartsSettings,
    KeySettings,
    OutboundSettings,
    RouteSettings,
    Settings,
    TokenSettings,
    UserSettings,
    format_duration,
)
from bridge.settings.notice_rules import notice_warnings
from bridge.settings.rules import CREDENTIALS, S3_SCHEME, credential

SHORT_SECRET = 16
"""Characters. A shorter token can be guessed, or is a word."""

FEW_CHARACTERS = 6
"""Different ones. A random token has more, also in hex."""

EXPIRES_SOON = timedelta(days=30)
ORCHESTRATORS_WAIT = timedelta(seconds=30)
"""Kubernetes and others kill a container that has not ended by then."""

SHORT_RETENTION = timedelta(hours=1)


def warnings(settings: Settings, *, now: datetime | None = None) -> list[str]:
    """Return one warning a line, each beginning with the key of the setting; `now` is the current time by default."""
    return [
        *_secrets(settings),
        *_expiry(settings.callers, now or datetime.now(UTC)),
        *_durations(settings),
        *glob_warnings(settings),
        *_routes(settings),
        *_stated_routes(settings),
        *_build_end(settings),
        *_credentials(settings.codearts),
        *_outbound(settings.outbound),
        *_exposed(settings),
        *_callers(settings),
        *_s3(settings),
        *_shared_ledger(settings),
        *notice_warnings(settings),
    ]


def _routes(settings: Settings) -> Iterator[str]:
    for index, route in enumerate(settings.routes):
        earlier = next((other for other in settings.routes[:index] if _covers(other, route)), None)
        if earlier is not None:
            yield (
                f'routes[{index}]: "{route.name}" never matches, because "{earlier.name}" comes first and matches all '
                "its builds. Put it first."
            )
        elif not settings.codearts.endpoint and "*" not in route.repo:
            yield (
                f'routes[{index}].repo: "{route.name}" never matches, because only CodeArts knows repositories. '
                "Set codearts.endpoint, or match by job_id, project_id or branch."
            )


def _stated_routes(settings: Settings) -> Iterator[str]:
    """Warn if only what uploads state decides between routes of different callers."""
    callers = settings.callers
    tables: list[TokenSettings | KeySettings | UserSettings] = [*callers.tokens, *callers.keys, *callers.users]
    bound = [set(table.routes) for table in tables if table.routes]
    if settings.codearts.endpoint:
        return
    for index, route in enumerate(settings.routes):
        for other in settings.routes[:index]:
            apart = any(len({route.name, other.name} & routes) == 1 for routes in bound)
            by_job_alone = all("*" in globs for globs in (other.job_name, other.project_id, other.repo, other.branch))
            if apart and not by_job_alone and _share_jobs(other, route) and not _covers(other, route):
                yield (
                    f'routes[{index}]: "{route.name}" and "{other.name}" take the same jobs, and a caller is bound to '
                    "one of them only. Without codearts.endpoint, what the first upload states decides between them. "
                    "Set codearts.endpoint, or tell the routes apart by job_id."
                )
                break


def _share_jobs(one: RouteSettings, other: RouteSettings) -> bool:
    pairs = ((one.job_id, other.job_id), (other.job_id, one.job_id))
    return any(_includes(wide, glob) for wide, narrow in pairs for glob in narrow)


def _build_end(settings: Settings) -> Iterator[str]:
    codearts, polling = settings.codearts, settings.polling
    if not codearts.endpoint:
        yield (
            "codearts.endpoint: is empty, so the end of a build cannot be polled. A run is finalized when an upload "
            f"has complete=true, or after {format_duration(polling.idle_timeout)} without a report "
            "(polling.idle_timeout)."
        )
        if settings.webhook.secret:
            yield "webhook.secret: is not used, because codearts.endpoint is empty. Set codearts.endpoint."
    if polling.grace_period > settings.delivery.max_finalize_delay:
        yield "polling.grace_period: is longer than delivery.max_finalize_delay. Runs will be finalized late."


def _credentials(codearts: CodeartsSettings) -> Iterator[str]:
    used = CREDENTIALS[codearts.auth]
    for auth, names in CREDENTIALS.items():
        for name in names:
            if name not in used and credential(codearts, name):
                yield f'codearts.{name}: is not used, because codearts.auth is "{codearts.auth}". Set auth = "{auth}".'
    if codearts.auth != "none" and not codearts.endpoint and not codearts.check_endpoint:
        yield "codearts.auth: is not used, because codearts.endpoint is empty. Set codearts.endpoint."


def _outbound(outbound: OutboundSettings) -> Iterator[str]:
    if outbound.no_proxy and not outbound.http_proxy.get_secret_value():
        yield "outbound.no_proxy: is not used, because outbound.http_proxy is empty. Remove it, or set http_proxy."


def _secrets(settings: Settings) -> Iterator[str]:
    callers = settings.callers
    found = [(f"callers.tokens[{index}].token", token.token) for index, token in enumerate(callers.tokens)]
    found += [("admin.token", token) for token in settings.admin.token]
    found += [("admin.viewer_token", token) for token in settings.admin.viewer_token]
    found += [("webhook.secret", secret) for secret in settings.webhook.secret]
    first: dict[str, str] = {}
    for key, secret in found:
        text = secret.get_secret_value()
        other = first.setdefault(text, key)
        if text and other != key:
            yield f"{key}: is the same secret as {other}. Use a separate one, so that each can be replaced alone."
    found += [(f"callers.keys[{index}].secret_key", key.secret_key) for index, key in enumerate(callers.keys)]
    for key, secret in found:
        text = secret.get_secret_value()
        remedy = "Use a random one, such as the output of: openssl rand -hex 32"
        if 0 < len(text) < SHORT_SECRET:
            yield f"{key}: has fewer than {SHORT_SECRET} characters, so it may be guessed. {remedy}"
        elif text and len(set(text)) < FEW_CHARACTERS:
            yield f"{key}: has fewer than {FEW_CHARACTERS} different characters, so it may be guessed. {remedy}"


def _expiry(callers: CallersSettings, now: datetime) -> Iterator[str]:
    expiring: list[tuple[str, TokenSettings | KeySettings]] = []
    expiring += [(f"callers.tokens[{index}]", token) for index, token in enumerate(callers.tokens)]
    expiring += [(f"callers.keys[{index}]", key) for index, key in enumerate(callers.keys)]
    for key, caller in expiring:
        if caller.expires_at is None or caller.expires_at - now > EXPIRES_SOON:
            continue
        day = f"{caller.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        if caller.expires_at <= now:
            fault = f'"{caller.name}" expired at {day}, so its requests are answered 401.'
            remedy = "Replace its secret and the date, or remove the table."
        else:
            days = (caller.expires_at - now) // timedelta(days=1)
            fault = f'"{caller.name}" expires at {day}, in {counted(days, "day")}.'
            remedy = "Replace its secret and the date before that."
        yield f"{key}.expires_at: {fault} {remedy}"


def _durations(settings: Settings) -> Iterator[str]:
    store, polling, server = settings.store, settings.polling, settings.server
    for key, duration, kept in (
        ("store.retention", store.retention, "archive copies and the bytes of dead reports"),
        ("store.rejected_retention", store.rejected_retention, "rejections and rejected files"),
    ):
        if duration < SHORT_RETENTION:
            yield f"{key}: is {format_duration(duration)}, so {kept} are deleted almost at once. Use hours or days."
    if not store.min_free_space:
        yield (
            "store.min_free_space: is 0 B, so uploads may fill the disk, and then nothing can be delivered. "
            'Use a size such as "1 GiB".'
        )
    if not polling.idle_timeout and not settings.codearts.endpoint:
        yield "polling.idle_timeout: is 0s, so a build ends before its second upload. Use minutes."
    if server.shutdown_timeout > ORCHESTRATORS_WAIT:
        yield (
            f"server.shutdown_timeout: is {format_duration(server.shutdown_timeout)}, but Kubernetes and others end a "
            "process 30 seconds after SIGTERM. Raise their limit above it, or shorten it."
        )


def _exposed(settings: Settings) -> Iterator[str]:
    for key, url in (
        ("testnod.base_url", settings.testnod.base_url),
        ("codearts.endpoint", settings.codearts.endpoint),
        ("codearts.check_endpoint", settings.codearts.check_endpoint),
        ("codearts.iam_endpoint", settings.codearts.iam_endpoint),
    ):
        if path := urlsplit(url).path.rstrip("/"):
            yield (
                f'{key}: has the path "{path}", which is put before the paths of the API. '
                "Remove it, unless a proxy there requires it."
            )
        if _is_plain_http(url):
            yield f"{key}: is plain http, so tokens are not encrypted. Use https except for trials."
    if settings.testnod.allow_private_storage and not settings.testnod.storage_hosts:
        yield (
            "testnod.allow_private_storage: permits TestNod to direct reports to addresses inside this network. "
            "Use it for trials only, or list the hosts in testnod.storage_hosts."
        )
    if "open" in settings.callers.auth and not is_loopback(settings.server.host):
        yield "callers.auth: is open to every client that reaches server.host. Give callers tokens."
    server = settings.server
    is_encrypted = is_loopback(server.host) or server.tls_cert_file or server.behind_tls_proxy
    if not is_encrypted and "aksk" in settings.callers.auth:
        yield (
            "server.behind_tls_proxy: is false. Signatures reveal no key, but reports are not encrypted. "
            "Set server.tls_cert_file and tls_key_file, or behind_tls_proxy = true if a proxy in front terminates TLS."
        )


def _callers(settings: Settings) -> Iterator[str]:
    callers = settings.callers
    for name, tables, scheme in (
        ("tokens", callers.tokens, "token"),
        ("keys", callers.keys, "aksk"),
        ("users", callers.users, "iam"),
    ):
        if tables and scheme not in callers.auth:
            yield f'callers.{name}: are not used, because callers.auth lacks "{scheme}". Add it, or remove them.'


def _s3(settings: Settings) -> Iterator[str]:
    s3 = settings.s3
    is_used = S3_SCHEME in settings.store.spool + settings.store.archive
    if not is_used and any((s3.endpoint_url, s3.region, s3.access_key_id.get_secret_value())):
        yield "s3: is not used, because neither store.spool nor store.archive is in S3. Remove it, or use it there."
    if is_used and _is_plain_http(s3.endpoint_url):
        yield "s3.endpoint_url: is plain http, so reports are not encrypted. Use https except for trials."


def _shared_ledger(settings: Settings) -> Iterator[str]:
    if not settings.store.url.startswith("sqlite:") and "://" not in settings.store.spool:
        yield (
            "store.spool: is a folder, although the ledger is in PostgreSQL. This is right for one gateway. Several "
            "gateways need a folder that all of them share, or they cannot read each other's large reports."
        )


def _is_plain_http(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _covers(earlier: RouteSettings, later: RouteSettings) -> bool:
    pairs = (
        (earlier.job_id, later.job_id),
        (earlier.project_id, later.project_id),
        (earlier.repo, later.repo),
        (earlier.branch, later.branch),
        (earlier.job_name, later.job_name),
    )
    return all(all(_includes(wide, glob) for glob in narrow) for wide, narrow in pairs)


def _includes(wide: tuple[str, ...], glob: str) -> bool:
    """Return whether `wide` certainly matches all that `glob` matches: an equal glob, any, or a plain word."""
    is_word = not any(character in glob for character in "*?[")
    return any(other in (glob, *ANY) or (is_word and fnmatchcase(glob, other)) for other in wide)
