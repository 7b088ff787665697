"""Maps the settings to the options of each component."""

from collections.abc import Sequence
from datetime import timedelta
from fnmatch import fnmatchcase

from pydantic import SecretStr
from yarl import URL

from bridge.client.credentials import AccessKeySigner, Credentials, PasswordLogin, StaticHeaders
from bridge.client.iam import Iam
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.presigned_put import MAX_PUT_SECONDS
from bridge.clock import Clock
from bridge.domain.callers import (
    IAM_NAME_PREFIX,
    OPEN_CALLER,
    PROJECT_NAME_PREFIX,
    AccessKey,
    AuthScheme,
    Caller,
    Credential,
    IamUsers,
    hash_token,
)
from bridge.domain.code_check.models import CodeCheckRules, IssueKind
from bridge.domain.instants import SECOND, Duration, Instant
from bridge.domain.junit.rewrite_rules import RewriteRule
from bridge.domain.no_proxy import read_no_proxy_entry
from bridge.domain.outcomes import NotSent
from bridge.domain.policy import Policy
from bridge.domain.routing import InvalidFilePolicy, ResultSuite, Route, canonical_job_id
from bridge.errors import SettingsError
from bridge.protocols.aksk_signing import AccessKeyPair
from bridge.protocols.iam import AUTH_HEADER, Login, ValidationOutcome
from bridge.server.admin.access import AdminAccess
from bridge.server.auth.authenticator import Authenticator
from bridge.server.auth.iam_tokens import IamTokens, Tenant, Verdicts
from bridge.server.auth.signatures import Lockout, RecordUse, SignatureVerifier
from bridge.server.http.requests import read_networks
from bridge.server.http.tls import Certificate
from bridge.server.proxy.authorization import ProxyPolicy
from bridge.server.proxy.request_target import Upstream
from bridge.server.submission.project_tokens import ProjectTokens
from bridge.server.upload.file_store import UploadLimits
from bridge.settings import Settings
from bridge.settings.model import CodeCheckSettings, KeySettings, RouteSettings, TokenSettings, UserSettings
from bridge.settings.tls_files import CertificateFiles, read_authorities


def microseconds(duration: timedelta) -> Duration:
    """Return a duration as the core and the ledger count it."""
    return Duration(int(duration / timedelta(microseconds=1)))


def to_route(route: RouteSettings, settings: Settings) -> Route:
    """Return the route of a `[[routes]]` table."""
    return Route(
        name=route.name,
        tags=route.tags,
        paused=route.paused,
        job_id=tuple(map(canonical_job_id, route.job_id)),
        project_id=route.project_id,
        repo=route.repo,
        branch=route.branch,
        job_name=route.job_name,
        build_id=route.build_id,
        run_url=route.run_url,
        on_invalid=InvalidFilePolicy(route.on_invalid or settings.server.on_invalid),
        mirror=route.mirror,
        repair=route.repair,
        strip=route.strip,
        rewrite=tuple(
            RewriteRule(attribute=rule.attribute, pattern=rule.pattern, replacement=rule.replacement)
            for rule in route.rewrite
        ),
        result_suite=ResultSuite(route.result_suite),
        code_check=to_code_check_rules(route.code_check) if route.code_check is not None else None,
    )


def to_code_check_rules(code_check: CodeCheckSettings) -> CodeCheckRules:
    """Return the rules of a `[routes.code_check]` table."""
    limits = {
        IssueKind.CRITICAL: code_check.max_critical,
        IssueKind.MAJOR: code_check.max_major,
        IssueKind.MINOR: code_check.max_minor,
        IssueKind.SUGGESTION: code_check.max_suggestion,
        IssueKind.NEW: code_check.max_new,
    }
    return CodeCheckRules(
        task_id=code_check.task_id,
        job_id=code_check.job_id,
        limits=tuple((kind, allowed) for kind, allowed in limits.items() if allowed is not None),
        wait_us=microseconds(code_check.timeout),
        omit_missing=code_check.on_missing == "omit",
    )


def to_policy(settings: Settings) -> Policy:
    """Return the policy of `[polling]`, `[delivery]` and the routes, for domain/plan.py."""
    polling, delivery = settings.polling, settings.delivery
    return Policy(
        has_codearts=bool(settings.codearts.endpoint),
        has_archive=bool(settings.store.archive),
        routes=tuple(to_route(route, settings) for route in settings.routes),
        poll_initial_delay=microseconds(polling.initial_delay),
        poll_min_interval=microseconds(polling.min_interval),
        poll_max_interval=microseconds(polling.max_interval),
        grace_period=microseconds(polling.grace_period),
        idle_timeout=microseconds(polling.idle_timeout),
        not_found_timeout=microseconds(polling.not_found_timeout),
        max_age=microseconds(polling.max_age),
        confirm_timeout=microseconds(polling.confirm_timeout),
        concurrency_per_build=delivery.concurrency_per_build,
        give_up_after=microseconds(delivery.give_up_after),
        max_finalize_delay=microseconds(delivery.max_finalize_delay),
        retry_initial_delay=microseconds(delivery.retry_initial_delay),
        retry_max_delay=microseconds(delivery.retry_max_delay),
        max_put_duration=Duration(MAX_PUT_SECONDS * SECOND),
        replace_stuck_runs=delivery.replace_stuck_runs,
    )


def to_outbound_proxy(settings: Settings) -> OutboundProxy:
    """Return the outbound proxy and trusted authorities; raise SettingsError if outbound.ca_file cannot be used."""
    outbound = settings.outbound
    proxy = outbound.http_proxy.get_secret_value()
    try:
        trust = read_authorities(outbound.ca_file) if outbound.ca_file else None
    except ValueError as error:
        raise SettingsError([f"outbound.ca_file: {error}. Name a readable file with PEM certificates."]) from None
    return OutboundProxy(
        proxy=URL(proxy) if proxy else None,
        exemptions=tuple(read_no_proxy_entry(entry) for entry in outbound.no_proxy),
        trust=trust,
    )


def to_credentials(settings: Settings, iam: Iam | None, clock: Clock) -> Credentials:
    """Return the bridge's credentials at CodeArts; `iam` is required for passwords only."""
    codearts = settings.codearts
    match codearts.auth:
        case "none":
            return StaticHeaders()
        case "token":
            return StaticHeaders(((AUTH_HEADER, codearts.token.get_secret_value()),))
        case "aksk":
            key = AccessKeyPair(
                access_key=codearts.access_key.get_secret_value(), secret_key=codearts.secret_key.get_secret_value()
            )
            return AccessKeySigner(key, codearts.project, clock.now)
        case "password":
            if iam is None:
                raise SettingsError(["codearts.iam_endpoint: is missing. Set it, or codearts.region."])
            return PasswordLogin(iam, to_login(settings), clock.now)


def to_login(settings: Settings) -> Login:
    """Return what the bridge logs in with at IAM."""
    codearts = settings.codearts
    return Login(
        user=codearts.user,
        password=codearts.password.get_secret_value(),
        domain=codearts.domain,
        project=codearts.project or codearts.region,
    )


def to_credential_text(settings: Settings) -> SecretStr:
    """Return the bridge's credentials at CodeArts as one text, which differs if they differ."""
    codearts = settings.codearts
    secrets = (codearts.access_key, codearts.secret_key, codearts.password, codearts.token)
    names = (codearts.auth, codearts.user, codearts.domain, codearts.project)
    return SecretStr("\0".join([*names, *(secret.get_secret_value() for secret in secrets)]))


def to_endpoints(settings: Settings) -> dict[Upstream, str]:
    """Return the endpoints that requests may be forwarded to."""
    codearts = settings.codearts
    endpoints = {
        Upstream.BUILD: codearts.endpoint,
        Upstream.CHECK: codearts.check_endpoint,
        Upstream.IAM: codearts.iam_url,
    }
    return {upstream: endpoint for upstream, endpoint in endpoints.items() if endpoint}


def to_proxy_policy(settings: Settings) -> ProxyPolicy:
    """Return which requests may use the bridge's credentials at CodeArts."""
    return ProxyPolicy(
        paths=settings.proxy.paths,
        methods=settings.proxy.methods,
        max_upload_bytes=settings.server.max_request_size,
    )


def to_certificate(settings: Settings) -> Certificate | None:
    """Return the certificate of the server listener, None for plain HTTP; raise SettingsError if it is invalid."""
    server = settings.server
    if not server.tls_cert_file:
        return None
    try:
        return Certificate(CertificateFiles(cert_file=server.tls_cert_file, key_file=server.tls_key_file))
    except ValueError as error:
        raise SettingsError([f"server.tls_cert_file: {error}. Replace these files."]) from None


def to_upload_limits(settings: Settings) -> UploadLimits:
    """Return the limits of one upload."""
    return UploadLimits(
        max_report_size=settings.server.max_report_size,
        max_request_size=settings.server.max_request_size,
        max_files=settings.server.max_files,
    )


def to_admin_access(settings: Settings) -> AdminAccess:
    """Return who may use the admin listener."""
    admin = settings.admin
    return AdminAccess(
        operator_tokens=tuple(token.get_secret_value() for token in admin.token),
        viewer_tokens=tuple(token.get_secret_value() for token in admin.viewer_token),
        user_header=admin.user_header,
        user_header_from=read_networks(admin.user_header_from),
        operators=admin.operators,
        proxies=read_networks([*settings.server.trusted_proxies, *admin.user_header_from]),
    )


def to_authenticator(
    settings: Settings,
    iam: Iam | None,
    clock: Clock,
    *,
    lockout: Lockout,
    record_use: RecordUse,
    iam_verdicts: Verdicts,
) -> Authenticator:
    """Return the authenticator of callers; `iam` validates IAM tokens.

    `lockout` (of keys) and `iam_verdicts` (valid tokens) survive a reload.
    """
    callers = settings.callers
    keys = [
        AccessKey(
            access_key=key.access_key.get_secret_value(),
            secret_key=key.secret_key.get_secret_value(),
            caller=_caller(AuthScheme.AKSK, key),
            expires_at=_expires_at(key),
        )
        for key in callers.keys
    ]
    secrets = [*settings.admin.token, *settings.admin.viewer_token, *settings.webhook.secret]
    secrets += [route.project_token for route in settings.routes]
    return Authenticator(
        _token_credentials(settings),
        now=clock.now,
        iam=_iam_tokens(settings, iam, clock, iam_verdicts) if iam is not None and "iam" in callers.auth else None,
        signatures=SignatureVerifier(keys, now=clock.now, lockout=lockout, record_use=record_use)
        if "aksk" in callers.auth
        else None,
        open_to_all="open" in callers.auth,
        own=[token.digest for token in callers.tokens] + [hash_token(secret.get_secret_value()) for secret in secrets],
    )


def to_project_tokens(settings: Settings, routes: Sequence[Route], clock: Clock) -> ProjectTokens:
    """Return who may use TestNod's submission API: callers with a token, and who has the project token of a route."""
    by_token: dict[str, list[str]] = {}
    for route in settings.routes:
        by_token.setdefault(route.project_token.get_secret_value(), []).append(route.name)
    projects = [
        Credential(hash=hash_token(token), caller=_project_caller(names)) for token, names in by_token.items() if token
    ]
    return ProjectTokens([*_token_credentials(settings), *projects], routes, now=clock.now)


def _token_credentials(settings: Settings) -> list[Credential]:
    callers = settings.callers
    tokens = callers.tokens if "token" in callers.auth else []
    return [
        Credential(hash=token.digest, caller=_caller(AuthScheme.TOKEN, token), expires_at=_expires_at(token))
        for token in tokens
    ]


def _project_caller(routes: list[str]) -> Caller:
    name = f"{PROJECT_NAME_PREFIX}{routes[0]}"
    return Caller(scheme=AuthScheme.TOKEN, name=name, routes=tuple(routes), scopes=frozenset({"upload"}))


def _routes_of_project(settings: Settings, route: str) -> tuple[str, ...]:
    """Return the routes with the project token of `route`."""
    tokens = {each.name: each.project_token.get_secret_value() for each in settings.routes}
    return tuple(name for name, token in tokens.items() if token == tokens.get(route))


def routes_of(settings: Settings, caller: str) -> tuple[str, ...] | None:
    """Return the routes that the caller of this name may use: None for all, none if it is no longer in the settings."""
    known = {OPEN_CALLER.name: OPEN_CALLER.routes}
    known |= {token.name: token.routes or None for token in settings.callers.tokens}
    known |= {key.name: key.routes or None for key in settings.callers.keys}
    if caller.startswith(PROJECT_NAME_PREFIX):
        return _routes_of_project(settings, caller.removeprefix(PROJECT_NAME_PREFIX))
    if not caller.startswith(IAM_NAME_PREFIX):
        return known.get(caller, ())
    users = settings.callers.users or [UserSettings(name="*")]
    user = caller.removeprefix(IAM_NAME_PREFIX)
    return next((table.routes or None for table in users if fnmatchcase(user, table.name)), ())


def _iam_tokens(settings: Settings, iam: Iam, clock: Clock, verdicts: Verdicts) -> IamTokens:
    async def check(token: str) -> ValidationOutcome | NotSent:
        return await iam.validate(token, requester=token)

    users = [
        IamUsers(name=users.name, routes=users.routes or None, scopes=frozenset(users.scopes))
        for users in settings.callers.users or [UserSettings(name="*")]
    ]
    tenant = Tenant(domain=settings.codearts.domain, project=settings.codearts.project)
    return IamTokens(check, users, tenant, now=clock.now, steady=clock.steady, valid=verdicts)


def _caller(scheme: AuthScheme, table: TokenSettings | KeySettings) -> Caller:
    return Caller(scheme=scheme, name=table.name, routes=table.routes or None, scopes=frozenset(table.scopes))


def _expires_at(table: TokenSettings | KeySettings) -> Instant | None:
    return Instant(int(table.expires_at.timestamp() * SECOND)) if table.expires_at else None
