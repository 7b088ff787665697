"""Every setting with its type and default, table by table, in the order of config.example.toml.

It knows single values only: what must hold between settings stands in rules.py. Every field has a default, so
that one bad value never hides what else is wrong; rules.py says which of them must be set.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from bridge.domain.callers import hash_token
from bridge.domain.routing import ANY, InvalidFilePolicy
from bridge.settings.types import (
    NO_SECRET,
    ONE_OR_MORE,
    Count,
    Duration,
    Globs,
    Limit,
    Names,
    Port,
    Secret,
    Secrets,
    Size,
)

MIB = 1 << 20
GIB = 1 << 30


class SettingsTable(BaseModel):
    """One table of the file: frozen, and refusing names that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServerSettings(SettingsTable):
    """`[server]`: the listener that CI reaches, and what it takes."""

    host: str = "0.0.0.0"
    port: Port = 8080
    max_report_size: Size = 50 * MIB
    max_request_size: Size = 256 * MIB
    max_files: Count = 5000
    on_invalid: InvalidFilePolicy = InvalidFilePolicy.FAIL
    trusted_proxies: tuple[str, ...] = ()
    tls_cert_file: str = ""
    tls_key_file: str = ""
    behind_tls_proxy: bool = False
    shutdown_timeout: Duration = timedelta(seconds=25)


class AdminSettings(SettingsTable):
    """`[admin]`: the listener for operators."""

    host: str = "127.0.0.1"
    port: Port = 8081
    token: Secrets = ()


class StoreSettings(SettingsTable):
    """`[store]`: where the ledger and the bytes are."""

    url: str = "sqlite:///data/bridge.db"
    spool: str = "data/spool"
    archive: str = ""
    retention: Duration = timedelta(days=30)
    rejected_retention: Duration = timedelta(days=7)
    min_free_space: Size = GIB


class S3Settings(SettingsTable):
    """`[s3]`: the bucket that spool and archive may lie in."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: Secret = NO_SECRET
    secret_access_key: Secret = NO_SECRET


class OutboundSettings(SettingsTable):
    """`[outbound]`: the way out."""

    http_proxy: Secret = NO_SECRET  # its URL may hold a user and a password
    no_proxy: Names = ()
    ca_file: str = ""


class TestnodSettings(SettingsTable):
    """`[testnod]`: where reports go."""

    base_url: str = "https://app.testnod.com"
    storage_hosts: tuple[str, ...] = ()
    allow_private_storage: bool = False


class CodeartsSettings(SettingsTable):
    """`[codearts]`: whom to ask about builds, and who the bridge is there."""

    endpoint: str = ""
    check_endpoint: str = ""
    iam_endpoint: str = ""
    region: str = ""
    project: str = ""
    auth: Literal["none", "token", "password", "aksk"] = "none"
    access_key: Secret = NO_SECRET
    secret_key: Secret = NO_SECRET
    user: str = ""
    password: Secret = NO_SECRET
    domain: str = ""
    token: Secret = NO_SECRET

    @property
    def iam_url(self) -> str:
        """Where IAM is: as it is set, else where the region's is."""
        return self.iam_endpoint or (f"https://iam.{self.region}.myhuaweicloud.com" if self.region else "")


class PollingSettings(SettingsTable):
    """`[polling]`: when to look at a build, and when it counts as ended."""

    initial_delay: Duration = timedelta(seconds=5)
    min_interval: Duration = timedelta(seconds=5)
    max_interval: Duration = timedelta(seconds=60)
    requests_per_minute: Annotated[float, Field(gt=0, le=600_000, allow_inf_nan=False)] = 50.0
    grace_period: Duration = timedelta(seconds=10)
    idle_timeout: Duration = timedelta(minutes=15)
    not_found_timeout: Duration = timedelta(minutes=10)
    max_age: Duration = timedelta(hours=24)
    confirm_timeout: Duration = timedelta(hours=1)


class DeliverySettings(SettingsTable):
    """`[delivery]`: how reports are carried, and how long."""

    concurrency: Count = 16
    concurrency_per_build: Count = 4
    give_up_after: Duration = timedelta(days=7)
    max_finalize_delay: Duration = timedelta(minutes=30)
    retry_initial_delay: Duration = timedelta(seconds=1)
    retry_max_delay: Duration = timedelta(minutes=10)
    lease_duration: Duration = timedelta(seconds=15)


Scopes = tuple[Literal["upload", "status", "proxy"], ...]


class TokenSettings(SettingsTable):
    """One `[[callers.tokens]]` table: a token, or its hash, and what it may do."""

    name: str = ""
    token: Secret = NO_SECRET
    hash: Secret = NO_SECRET
    routes: tuple[str, ...] = ()
    scopes: Scopes = ("upload",)
    expires_at: AwareDatetime | None = None

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the token, whichever way it was given."""
        return self.hash.get_secret_value() or hash_token(self.token.get_secret_value())


class KeySettings(SettingsTable):
    """One `[[callers.keys]]` table: an access key that callers sign with."""

    name: str = ""
    access_key: Secret = NO_SECRET
    secret_key: Secret = NO_SECRET
    routes: tuple[str, ...] = ()
    scopes: Scopes = ("upload",)
    expires_at: AwareDatetime | None = None


class UserSettings(SettingsTable):
    """One `[[callers.users]]` table: what the IAM users may do whose names match the glob `name`."""

    name: str = ""
    routes: tuple[str, ...] = ()
    scopes: Scopes = ("upload", "status", "proxy")


class CallersSettings(SettingsTable):
    """`[callers]`: who may upload and ask."""

    auth: Annotated[tuple[Literal["open", "token", "iam", "aksk"], ...], ONE_OR_MORE] = ("token",)
    allow_open: bool = False
    tokens: tuple[TokenSettings, ...] = ()
    keys: tuple[KeySettings, ...] = ()
    users: tuple[UserSettings, ...] = ()


class ProxySettings(SettingsTable):
    """`[proxy]`: what callers without rights of their own at CodeArts may ask in the bridge's name."""

    enabled: bool = True
    paths: tuple[str, ...] = (
        "/v1/job/*/*/build-info",
        "/v1/record/*/*/record-info",
        "/v4/jobs/*/*/record-info",
        "/v1/record/*/full-stages",
        "/v1/report/*/summary",
        "PUT /v1/jobs/*/result/refresh",
    )
    methods: tuple[str, ...] = ("GET", "HEAD")


class WebhookSettings(SettingsTable):
    """`[webhook]`: who may say that a build is worth a look."""

    secret: Secrets = ()


class CodeCheckSettings(SettingsTable):
    """`[routes.code_check]`: the Check task that is asked at a build's end; a limit that is not set does not count."""

    task_id: str = ""
    job_id: str = ""
    max_critical: Limit | None = None
    max_major: Limit | None = None
    max_minor: Limit | None = None
    max_suggestion: Limit | None = None
    max_new: Limit | None = None
    timeout: Duration = timedelta(minutes=2)
    on_missing: Literal["report", "omit"] = "report"  # a suite that says that no report came, or none


class RouteSettings(SettingsTable):
    """One `[[routes]]` table: the builds it takes, their TestNod project, and how their runs are labelled."""

    name: str = ""
    project_token: Secret = NO_SECRET
    tags: tuple[str, ...] = ()
    job_id: Globs = ANY
    project_id: Globs = ANY
    repo: Globs = ANY
    branch: Globs = ANY
    build_id: str = "codearts-{job_id}-{build_no}"
    run_url: str = ""
    on_invalid: Literal["", "fail", "warn"] = ""  # empty: as the server does
    mirror: bool = False
    repair: bool = False
    strip: tuple[Literal["properties", "system-out", "system-err"], ...] = ()
    code_check: CodeCheckSettings | None = None


class Settings(SettingsTable):
    """The whole file."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    store: StoreSettings = StoreSettings()
    s3: S3Settings = S3Settings()
    outbound: OutboundSettings = OutboundSettings()
    testnod: TestnodSettings = TestnodSettings()
    codearts: CodeartsSettings = CodeartsSettings()
    polling: PollingSettings = PollingSettings()
    delivery: DeliverySettings = DeliverySettings()
    callers: CallersSettings = CallersSettings()
    proxy: ProxySettings = ProxySettings()
    webhook: WebhookSettings = WebhookSettings()
    routes: tuple[RouteSettings, ...] = ()
