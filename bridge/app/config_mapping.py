"""The operator's choices as the rooms need them: settings in, the values of each room out.

It starts nothing and knows no room's inside.
"""

from datetime import timedelta
from fnmatch import fnmatchcase

from yarl import URL

from bridge.client.credentials import AccessKeySigner, Credentials, PasswordLogin, StaticHeaders
from bridge.client.iam import Iam
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.presigned_put import MAX_PUT_SECONDS
from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.callers import (
    IAM_NAME_PREFIX,
    OPEN_CALLER,
    AccessKey,
    AuthScheme,
    Caller,
    Credential,
    IamUsers,
    hash_token,
)
from bridge.domain.code_check.models import CodeCheckRules, IssueKind
from bridge.domain.no_proxy import read_no_proxy_entry
from bridge.domain.outcomes import NotSent
from bridge.domain.policy import Policy
from bridge.domain.routing import InvalidFilePolicy, Route
from bridge.errors import SettingsError
from bridge.protocols.aksk_signing import AccessKeyPair
from bridge.protocols.iam import AUTH_HEADER, Login, ValidationOutcome
from bridge.server.auth.authenticator import Authenticator
from bridge.server.auth.iam_tokens import IamTokens, Tenant, Verdicts
from bridge.server.auth.signatures import SignatureState, SignatureVerifier
from bridge.server.http.tls import Certificate
from bridge.server.proxy.authorization import ProxyPolicy
from bridge.server.proxy.request_target import Upstream
from bridge.server.upload.limits import UploadLimits
from bridge.settings import Settings
from bridge.settings.model import CodeCheckSettings, KeySettings, RouteSettings, TokenSettings, UserSettings
from bridge.settings.tls_files import CertificateFiles, read_authorities


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
        on_invalid=InvalidFilePolicy(route.on_invalid or settings.server.on_invalid),
        mirror=route.mirror,
        repair=route.repair,
        strip=route.strip,
        code_check=to_quality(route.code_check) if route.code_check is not None else None,
    )


def to_quality(code_check: CodeCheckSettings) -> CodeCheckRules:
    """Return one `[routes.code_check]` table as the core knows it."""
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
        wait_us=microseconds(code_check.wait),
        omit_missing=code_check.on_missing == "omit",
    )


def to_policy(settings: Settings) -> Policy:
    """Return what plan.py needs of `[polling]`, `[delivery]` and the routes."""
    polling, delivery = settings.polling, settings.delivery
    return Policy(
        asks_codearts=bool(settings.codearts.endpoint),
        archives=bool(settings.store.archive),
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


def to_way_out(settings: Settings) -> OutboundProxy:
    """Return how calls leave; raise SettingsError where the authorities cannot be read (any more)."""
    client = settings.client
    proxy = client.proxy.get_secret_value()
    try:
        trust = read_authorities(client.ca_file) if client.ca_file else None
    except ValueError as error:
        raise SettingsError([f"client.ca_file: {error}. Name a file with PEM certificates that may be read."]) from None
    return OutboundProxy(
        proxy=URL(proxy) if proxy else None,
        exemptions=tuple(read_no_proxy_entry(entry) for entry in client.no_proxy),
        trust=trust,
    )


def to_account(settings: Settings, iam: Iam | None, clock: Clock) -> Credentials:
    """Return who the bridge is at CodeArts; `iam` is needed for passwords only."""
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
            login = Login(
                user=codearts.user,
                password=codearts.password.get_secret_value(),
                domain=codearts.domain,
                project=codearts.project or codearts.region,
            )
            return PasswordLogin(iam, login, clock.now)


def to_endpoints(settings: Settings) -> dict[Upstream, str]:
    """Return where proxied calls may go: the services that have an endpoint."""
    codearts = settings.codearts
    endpoints = {
        Upstream.BUILD: codearts.endpoint,
        Upstream.CHECK: codearts.check_endpoint,
        Upstream.IAM: codearts.iam_url,
    }
    return {upstream: endpoint for upstream, endpoint in endpoints.items() if endpoint}


def to_allowance(settings: Settings) -> ProxyPolicy:
    """Return what is asked of CodeArts in the bridge's name."""
    return ProxyPolicy(paths=settings.proxy.paths, methods=settings.proxy.methods)


def to_certificate(settings: Settings) -> Certificate | None:
    """Return what the server listener shows, None for plain HTTP; raise SettingsError where it cannot be used."""
    server = settings.server
    if not server.tls_cert_file:
        return None
    try:
        return Certificate(CertificateFiles(cert_file=server.tls_cert_file, key_file=server.tls_key_file))
    except ValueError as error:
        raise SettingsError([f"server.tls_cert_file: {error}. Put a good pair there."]) from None


def to_limits(settings: Settings) -> UploadLimits:
    """Return what one upload may be."""
    return UploadLimits(
        max_report_size=settings.server.max_report_size,
        max_request_size=settings.server.max_request_size,
        max_files=settings.server.max_files,
    )


def to_callers(
    settings: Settings, iam: Iam | None, clock: Clock, *, signed: SignatureState, good: Verdicts
) -> Authenticator:
    """Return who may come in, and how each is known; `iam` vouches for its tokens.

    `signed` and `good` are what is remembered of signatures and of IAM's verdicts.
    """
    callers = settings.callers
    credentials = [
        Credential(
            hash=token.digest,
            caller=_caller(AuthScheme.TOKEN, token),
            not_after=_not_after(token),
        )
        for token in callers.tokens
    ]
    keys = [
        AccessKey(
            access_key=key.access_key.get_secret_value(),
            secret_key=key.secret_key.get_secret_value(),
            caller=_caller(AuthScheme.AKSK, key),
            not_after=_not_after(key),
        )
        for key in callers.keys
    ]
    return Authenticator(
        credentials if "token" in callers.auth else [],
        now=clock.now,
        iam=_iam_tokens(settings, iam, clock, good) if iam is not None and "iam" in callers.auth else None,
        signatures=SignatureVerifier(keys, now=clock.now, memory=signed) if "aksk" in callers.auth else None,
        open_to_all="open" in callers.auth,
        own=[token.digest for token in callers.tokens]
        + [hash_token(secret.get_secret_value()) for secret in (*settings.admin.token, *settings.hook.secret)],
    )


def routes_of(settings: Settings, caller: str) -> tuple[str, ...] | None:
    """Return where the caller of this name may send, None for anywhere; whom nobody names any more, nowhere."""
    known = {OPEN_CALLER.name: OPEN_CALLER.routes}
    known |= {token.name: token.routes or None for token in settings.callers.tokens}
    known |= {key.name: key.routes or None for key in settings.callers.keys}
    if not caller.startswith(IAM_NAME_PREFIX):
        return known.get(caller, ())
    users = settings.callers.users or [UserSettings(name="*")]
    user = caller.removeprefix(IAM_NAME_PREFIX)
    return next((table.routes or None for table in users if fnmatchcase(user, table.name)), ())


def _iam_tokens(settings: Settings, iam: Iam, clock: Clock, good: Verdicts) -> IamTokens:
    async def check(token: str) -> ValidationOutcome | NotSent:
        return await iam.validate(token, asker=token)

    users = [
        IamUsers(name=users.name, routes=users.routes or None, scopes=frozenset(users.scopes))
        for users in settings.callers.users or [UserSettings(name="*")]
    ]
    tenant = Tenant(domain=settings.codearts.domain, project=settings.codearts.project)
    return IamTokens(check, users, tenant, now=clock.now, good=good)


def _caller(scheme: AuthScheme, table: TokenSettings | KeySettings) -> Caller:
    return Caller(scheme=scheme, name=table.name, routes=table.routes or None, scopes=frozenset(table.scopes))


def _not_after(table: TokenSettings | KeySettings) -> int | None:
    return int(table.not_after.timestamp() * SECOND) if table.not_after else None
