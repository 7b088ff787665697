"""Every setting with its type and default, table by table, in the order of config.example.toml.

Types check single values; rules.py checks values against each other and which of them are required. Every field has a
default, so that one invalid value does not hide other problems.
"""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

from bridge.domain.callers import hash_token
from bridge.domain.intake import MAX_FILES, MAX_REPORT_SIZE, MAX_REQUEST_SIZE
from bridge.domain.notices import EventKind
from bridge.domain.routing import ANY, InvalidFilePolicy

# Pydantic looks for plugins in the metadata of every installed package: 8 ms of each start, and none is wanted here.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

MIB = 1 << 20
GIB = 1 << 30

FILE_SUFFIX = "_file"
"""Appended to the name of a secret: the setting that names a file with the secret."""

_MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
_BYTES = {"TiB": 1 << 40, "GiB": GIB, "MiB": MIB, "KiB": 1 << 10, "B": 1}

MAX_DURATION = timedelta(days=3_650)  # ten years: more is a typing error, and times stay far below 2^53 microseconds
MAX_SIZE = 1 << 50  # one PiB: more is a typing error, and sizes stay below the ledger's 2^53

_DURATION = re.compile("".join(rf"(?:([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in _MICROSECONDS))
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)")

_NOT_A_DURATION = 'is not a duration. Use a number and a unit, such as "5s". Units in order: d, h, m, s, ms.'
_SIZE_REMEDY = 'Use a number and a unit (B, KiB, MiB, GiB or TiB), such as "50 MiB".'


def parse_duration(text: str) -> timedelta:
    """Return the duration in `text`: days, hours, minutes, seconds and milliseconds in descending order.

    Examples: "1h30m", "1.5s", "500ms". Raise ValueError, with cause and remedy, for other text, for more than ten years
    and for fractions of a microsecond.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f'"{text}" {_NOT_A_DURATION}')
    numbers = (Decimal(number or 0) for number in match.groups())
    microseconds = sum(number * unit for number, unit in zip(numbers, _MICROSECONDS.values(), strict=True))
    if microseconds > MAX_DURATION // timedelta(microseconds=1):
        raise ValueError(f'"{text}" is longer than ten years. Use a shorter duration.')
    if microseconds != int(microseconds):
        raise ValueError(f'"{text}" is not a whole number of microseconds. Use fewer decimal places.')
    return timedelta(microseconds=int(microseconds))


def format_duration(duration: timedelta) -> str:
    """Return a duration as `parse_duration` reads it, without units that are zero: "1h30m", "0.25ms", "0s"."""
    rest = duration // timedelta(microseconds=1)
    parts = []
    for unit, microseconds in _MICROSECONDS.items():
        number, rest = divmod(rest, microseconds)
        if unit == "ms" and rest:
            parts.append(f"{number}.{rest:03}".rstrip("0") + unit)
        elif number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Return the number of bytes in text such as "1.5 GiB"; raise ValueError with cause and remedy.

    Not pydantic.ByteSize, which also accepts plain numbers and reads "50 MB" as 50,000,000 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = next((size for name, size in _BYTES.items() if match and name.upper() == match[2].upper()), None)
    if match is None or unit is None:
        raise ValueError(f'"{text}" is not a size. {_SIZE_REMEDY}')
    size = Decimal(match[1]) * unit
    if size > MAX_SIZE:
        raise ValueError(f'"{text}" is more than 1024 TiB. Use a smaller size.')
    return int(size)


def format_size(size: int) -> str:
    """Return bytes in the largest unit that divides them, as `parse_size` reads them: "50 MiB", "0 B"."""
    return next((f"{size // unit} {name}" for name, unit in _BYTES.items() if size and size % unit == 0), "0 B")


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, timedelta):
        return value
    raise ValueError(_NOT_A_DURATION)


def _duration_or_none(value: Any) -> Any:
    return None if value is None or value == "" else _duration(value)


def _size(value: Any) -> Any:
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError(f"is not a size. {_SIZE_REMEDY}")


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would accept it as 0 or 1
        raise ValueError("is not a whole number. Use a number without quotes, such as 8080.")  # noqa: TRY004 -- a message to a person
    return value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _comma_separated(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _printable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text.isprintable() or text != text.strip():
        raise ValueError("contains a line break, a control character or a space at either end. Copy it again.")
    return secret


def _without_empty(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    return tuple(secret for secret in secrets if secret.get_secret_value())


def _host(host: str) -> str:
    """Return an address or a name to listen on; raise ValueError with cause and remedy if it is something else."""
    if "://" in host or "/" in host:
        raise ValueError('is a URL. Use an address without scheme and path, such as "127.0.0.1".')
    if host.startswith("["):
        raise ValueError('is in brackets. Write an IPv6 address without them, such as "::1".')
    if host == "*":
        raise ValueError('is not an address. Use "0.0.0.0" to listen on every address.')
    if host.count(":") == 1:
        raise ValueError('contains a port. Set it as port, and use an address such as "127.0.0.1".')
    if not host.isprintable() or " " in host:
        raise ValueError('is not an address. Use an address such as "127.0.0.1".')
    return host


READS_SIZE = BeforeValidator(_size)
_ONE_OR_MORE = BeforeValidator(_listed)
_WHOLE_NUMBER = BeforeValidator(_not_bool)

Duration = Annotated[timedelta, BeforeValidator(_duration)]
OptionalDuration = Annotated[timedelta | None, BeforeValidator(_duration_or_none)]  # empty: None
Size = Annotated[int, READS_SIZE]
Count = Annotated[int, Field(ge=1), _WHOLE_NUMBER]
Limit = Annotated[int, Field(ge=0), _WHOLE_NUMBER]
Port = Annotated[int, Field(ge=0, le=65_535), _WHOLE_NUMBER]  # 0: any free port
Secret = Annotated[SecretStr, AfterValidator(_printable)]
Secrets = Annotated[tuple[Secret, ...], _ONE_OR_MORE, AfterValidator(_without_empty)]
Host = Annotated[str, AfterValidator(_host)]
Names = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]
Globs = Annotated[tuple[str, ...], _ONE_OR_MORE]
Scopes = tuple[Literal["upload", "status", "proxy"], ...]
NO_SECRET = SecretStr("")


class SettingsTable(BaseModel):
    """A table of the file: frozen, without unknown names."""

    # Only the whole file is validated, so only `Settings` needs a validator: 3 ms of each start.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class ServerSettings(SettingsTable):
    """`[server]`: the listener for CI and the limits of an upload."""

    host: Host = "0.0.0.0"
    port: Port = 8080
    max_report_size: Size = MAX_REPORT_SIZE
    max_request_size: Size = MAX_REQUEST_SIZE
    max_files: Count = MAX_FILES
    on_invalid: InvalidFilePolicy = InvalidFilePolicy.FAIL
    trusted_proxies: tuple[str, ...] = ()
    tls_cert_file: str = ""
    tls_key_file: str = ""
    behind_tls_proxy: bool = False
    shutdown_timeout: Duration = timedelta(seconds=25)


class AdminSettings(SettingsTable):
    """`[admin]`: the listener for operators."""

    host: Host = "127.0.0.1"
    port: Port = 8081
    token: Secrets = ()
    viewer_token: Secrets = ()
    user_header: str = ""
    user_header_from: tuple[str, ...] = ()
    operators: Names = ()


class StoreSettings(SettingsTable):
    """`[store]`: where the ledger and report bytes are stored, and for how long."""

    url: str = "sqlite:///data/bridge.db"
    spool: str = "data/spool"
    archive: str = ""
    retention: Duration = timedelta(days=30)
    rejected_retention: Duration = timedelta(days=7)
    row_retention: OptionalDuration = None
    min_free_space: Size = GIB


class S3Settings(SettingsTable):
    """`[s3]`: the server and keys of the buckets for spool and archive."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: Secret = NO_SECRET
    secret_access_key: Secret = NO_SECRET


class OutboundSettings(SettingsTable):
    """`[outbound]`: the proxy and certificate authorities for calls to upstreams."""

    http_proxy: Secret = NO_SECRET  # its URL may contain a password
    no_proxy: Names = ()
    ca_file: str = ""


class TestnodSettings(SettingsTable):
    """`[testnod]`: where reports are delivered."""

    base_url: str = "https://app.testnod.com"
    storage_hosts: tuple[str, ...] = ()
    allow_private_storage: bool = False


class CodeartsSettings(SettingsTable):
    """`[codearts]`: the endpoints of CodeArts and the bridge's credentials there."""

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
        """Return `iam_endpoint`, else the address of the region's IAM, else ""."""
        return self.iam_endpoint or (f"https://iam.{self.region}.myhuaweicloud.com" if self.region else "")


class PollingSettings(SettingsTable):
    """`[polling]`: when a build is polled, and when it counts as ended."""

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
    """`[delivery]`: concurrency, retries and deadlines of deliveries."""

    concurrency: Count = 16
    concurrency_per_build: Count = 4
    give_up_after: Duration = timedelta(days=7)
    max_finalize_delay: Duration = timedelta(minutes=30)
    retry_initial_delay: Duration = timedelta(seconds=1)
    retry_max_delay: Duration = timedelta(minutes=10)
    lease_duration: Duration = timedelta(seconds=15)
    replace_stuck_runs: bool = True


class TokenSettings(SettingsTable):
    """A `[[callers.tokens]]` table: a token, or its hash, and the caller's rights."""

    name: str = ""
    token: Secret = NO_SECRET
    hash: Secret = NO_SECRET
    routes: tuple[str, ...] = ()
    scopes: Scopes = ("upload",)
    expires_at: AwareDatetime | None = None

    @property
    def digest(self) -> str:
        """Return `sha256:<hex>` of the token."""
        return self.hash.get_secret_value() or hash_token(self.token.get_secret_value())


class KeySettings(SettingsTable):
    """A `[[callers.keys]]` table: an access key that a caller signs with."""

    name: str = ""
    access_key: Secret = NO_SECRET
    secret_key: Secret = NO_SECRET
    routes: tuple[str, ...] = ()
    scopes: Scopes = ("upload",)
    expires_at: AwareDatetime | None = None


class UserSettings(SettingsTable):
    """A `[[callers.users]]` table: the rights of IAM users whose names match the glob `name`."""

    name: str = ""
    routes: tuple[str, ...] = ()
    scopes: Scopes = ("upload", "status", "proxy")


class CallersSettings(SettingsTable):
    """`[callers]`: who may upload and read."""

    auth: Annotated[tuple[Literal["open", "token", "iam", "aksk"], ...], _ONE_OR_MORE] = ("token",)
    allow_open: bool = False
    tokens: tuple[TokenSettings, ...] = ()
    keys: tuple[KeySettings, ...] = ()
    users: tuple[UserSettings, ...] = ()


class ProxySettings(SettingsTable):
    """`[proxy]`: what callers without rights of their own at CodeArts may request with the bridge's credentials."""

    enabled: bool = True
    paths: tuple[str, ...] = (
        "/v1/job/*/*/build-info",
        "/v1/record/*/*/record-info",
        "/v4/jobs/*/*/record-info",
        "/v1/record/*/full-stages",
        "/v1/report/*/summary",
        "/v1/report/junit/coverage/list",
        "/v1/report/junit/coverage/download",
        "PUT /v1/jobs/*/result/refresh",
    )
    methods: tuple[str, ...] = ("GET", "HEAD")


class WebhookSettings(SettingsTable):
    """`[webhook]`: who may request a poll of a build."""

    secret: Secrets = ()


class NoticeSettings(SettingsTable):
    """A `[[notices]]` table: which events are sent where, and in which format."""

    url: Secret = NO_SECRET  # who has it may send
    format: Literal["json", "slack", "feishu", "dingtalk", "wecom"] = "json"
    events: tuple[EventKind, ...] = ()  # empty: all
    routes: tuple[str, ...] = ()  # empty: all, and events of no route
    secret: Secret = NO_SECRET


class LogSettings(SettingsTable):
    """`[log]`: the lines on stderr."""

    format: Literal["auto", "json", "console"] = "auto"  # auto: text on a terminal, else JSON
    level: Literal["debug", "info", "warning", "error"] = "info"


class CodeCheckSettings(SettingsTable):
    """`[routes.code_check]`: the Check task whose report is added to the run; a limit of None does not apply."""

    task_id: str = ""
    job_id: str = ""
    max_critical: Limit | None = None
    max_major: Limit | None = None
    max_minor: Limit | None = None
    max_suggestion: Limit | None = None
    max_new: Limit | None = None
    timeout: Duration = timedelta(minutes=2)
    on_missing: Literal["report", "omit"] = "report"  # if no report came: a suite that states it, or none


class RewriteSettings(SettingsTable):
    """A `[[routes.rewrite]]` table: what is replaced in the names of test cases."""

    attribute: Literal["classname", "name"] = "name"
    pattern: str = ""
    replacement: str = ""


class RouteSettings(SettingsTable):
    """A `[[routes]]` table: which builds it matches, their TestNod project, and how their runs are labeled."""

    name: str = ""
    project_token: Secret = NO_SECRET
    tags: tuple[str, ...] = ()
    paused: bool = False  # accept reports, and send nothing
    job_id: Globs = ANY
    job_name: Globs = ANY
    project_id: Globs = ANY
    repo: Globs = ANY
    branch: Globs = ANY
    build_id: str = "codearts-{job_id}-{build_no}"
    run_url: str = ""
    on_invalid: Literal["", "fail", "warn"] = ""  # empty: the server's value
    mirror: bool = False
    repair: bool = False
    strip: tuple[Literal["properties", "system-out", "system-err"], ...] = ()
    rewrite: tuple[RewriteSettings, ...] = ()
    result_suite: Literal["off", "mismatch", "always"] = "off"  # whether a report with CodeArts' result is added
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
    notices: tuple[NoticeSettings, ...] = ()
    log: LogSettings = LogSettings()
    routes: tuple[RouteSettings, ...] = ()


def table_of(field: FieldInfo) -> type[SettingsTable] | None:
    """Return the model of the table, or of the tables in a list, that the field holds; None for a single value."""
    return next(
        (kind for kind in _types(field.annotation) if isinstance(kind, type) and issubclass(kind, SettingsTable)), None
    )


def is_list(field: FieldInfo) -> bool:
    """Return whether the field holds a list: of values, or of tables if `table_of` returns one."""
    return get_origin(field.annotation) is tuple


def is_secret(field: FieldInfo) -> bool:
    """Return whether the field holds one secret or several."""
    return SecretStr in _types(field.annotation)


def names_of(table: type[SettingsTable]) -> list[str]:
    """Return every name that is valid in the table, including `…_file` of secrets."""
    names = list(table.model_fields)
    return names + [name + FILE_SUFFIX for name, field in table.model_fields.items() if is_secret(field)]


def _types(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)
