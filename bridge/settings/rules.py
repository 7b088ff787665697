"""Rules between settings, and which settings are required. Each rule yields its problems.

Single values are checked by their types in model.py, `[callers]` in caller_rules.py.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import PurePath
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from bridge.domain.junit.rewrite_rules import MAX_RULES, RewriteRule, RuleFault, compile_rule
from bridge.domain.no_proxy import read_no_proxy_entry
from bridge.domain.routing import TEMPLATE_FIELDS, render, unknown_fields
from bridge.settings.caller_rules import caller_rules, is_loopback
from bridge.settings.environment import variable_of
from bridge.settings.glob_rules import ROUTE_GLOBS, glob_rules
from bridge.settings.model import FILE_SUFFIX, CodeartsSettings, RouteSettings, Settings, SettingsTable, table_of
from bridge.settings.notice_rules import notice_rules
from bridge.settings.problems import Problem, invalid_name, missing, nearest, repeated
from bridge.settings.tls_files import CertificateFiles, read_authorities
from bridge.values import dataclass

MAX_PORT = 65_535
S3_SCHEME = "s3://"
NOT_EXPANDED = ("begins with ~, which is not expanded.", "Write the path of the folder.")
MAX_S3_PREFIX = 512  # S3 keys have at most 1,024 bytes
NEEDED_IN_BUILD_ID = ("job_id", "build_no")  # without them two builds would share a run
SENDS_SECRETS = frozenset({"token", "iam"})
"""Schemes of callers.auth that send the secret itself, which an eavesdropper could reuse. Signatures reveal no key."""

CREDENTIALS = {
    "none": (),
    "token": ("token",),
    "password": ("user", "password", "domain"),
    "aksk": ("access_key", "secret_key"),
}
"""The settings that each value of `codearts.auth` requires. `password` also requires IAM and a project."""

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SQLITE = re.compile(r"sqlite:///[^:?#][^?#]*")
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^@:/?#,\[\]\s]*)(?::[0-9]{1,5})?"
_PAIR = r"[^#&=]+=[^#&]*"
# Stricter than libpq: a password that is not escaped could be taken for a host, which logs show.
_POSTGRES = re.compile(
    rf"postgres(?:ql)?://(?:[^/?#]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/[^@?#]*)?(?:\?{_PAIR}(?:&{_PAIR})*)?"
)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9._=-]+/)*")
_RUN_URL = re.compile(r"https?://[^/?#\s]|\{", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{\w+\}|\{\{")
_WHOLE_PLACEHOLDER = re.compile(r"\$\{\w+\}|\$\w+|\{\{.*\}\}|<[^<>]*>|%\w+%")
TEMPLATES = ("build_id", "run_url")
FREE_TEXT = frozenset((*TEMPLATES, "pattern", "replacement"))
"""Settings whose values may look like a placeholder."""
_METHOD = re.compile(r"[A-Z]+")
_PATH = re.compile(r"(?:[A-Z]+ )?(?:\*|(?:/(?!\*\*)[^/?#\s{}^$()|\\]+)+/?)")
_CHECK_ID = re.compile(r"[0-9A-Za-z]{1,32}")


def broken_rules(settings: Settings) -> Iterator[Problem]:
    """Yield every problem of settings that are valid one by one."""
    yield from _listeners(settings)
    yield from _tls(settings)
    yield from ledger_rules(settings)
    yield from _storage(settings)
    yield from _addresses(settings)
    yield from _limits(settings)
    yield from _outbound(settings)
    yield from _codearts(settings.codearts)
    yield from caller_rules(settings)
    yield from _proxy(settings)
    yield from _code_checks(settings)
    yield from _routes(settings)
    yield from glob_rules(settings)
    yield from notice_rules(settings)
    yield from _placeholders(settings)


def _listeners(settings: Settings) -> Iterator[Problem]:
    server, admin = settings.server, settings.admin
    for key, host in (("server.host", server.host), ("admin.host", admin.host)):
        if not host:
            yield Problem(key, "is empty.", 'Use the address to listen on, such as "127.0.0.1" or "0.0.0.0".')
    if server.port == admin.port != 0 and (server.host == admin.host or "0.0.0.0" in (server.host, admin.host)):
        yield Problem("admin.port", "is also server.port.", "Use different ports.")
    if not is_loopback(admin.host) and not admin.token and not admin.user_header:
        variable = variable_of("admin", "token")
        remedy = f'Set it here, in token_file, or in {variable}, or set admin.host = "127.0.0.1".'
        yield Problem("admin.token", "is missing, although other machines can reach admin.host.", remedy)
    yield from _networks("server.trusted_proxies", server.trusted_proxies)
    yield from _networks("admin.user_header_from", admin.user_header_from)
    if admin.user_header and not admin.user_header_from:
        remedy = "Name the addresses of the proxy that sets the header. It counts from no other address."
        yield Problem("admin.user_header_from", "is missing, although admin.user_header is set.", remedy)


def _networks(setting: str, networks: Sequence[str]) -> Iterator[Problem]:
    for index, network in enumerate(networks):
        key = f"{setting}[{index}]"
        try:
            meant = ip_network(network, strict=False)
        except ValueError:
            yield Problem(key, "is neither an address nor a network.", 'Use an entry such as "10.0.0.0/8".')
            continue
        if "/" in network and meant != ip_network(network.partition("/")[0]) and str(meant) != network.strip():
            yield Problem(key, "is an address within a network.", f'Use "{meant}" for the network.')


def _tls(settings: Settings) -> Iterator[Problem]:
    server = settings.server
    absent = [name for name in ("tls_cert_file", "tls_key_file") if not getattr(server, name)]
    if len(absent) == 1:
        other = "tls_key_file" if absent == ["tls_cert_file"] else "tls_cert_file"
        yield Problem(f"server.{absent[0]}", f"is missing, although {other} is set.", "Set both or neither.")
    elif not absent:
        try:
            CertificateFiles(cert_file=server.tls_cert_file, key_file=server.tls_key_file).load()
        except ValueError as error:
            remedy = "Name the certificate with its chain, and its key without a password."
            yield Problem("server.tls_cert_file", f"{error}.", remedy)
    elif _receives_secrets(settings) and not server.behind_tls_proxy and not is_loopback(server.host or "localhost"):
        yield Problem(
            "server.behind_tls_proxy",
            "is false, so tokens would cross the network unencrypted.",
            "If a proxy in front terminates TLS, set behind_tls_proxy = true under [server]. "
            'Otherwise set tls_cert_file and tls_key_file there, or host = "127.0.0.1".',
        )


def _receives_secrets(settings: Settings) -> bool:
    return bool(SENDS_SECRETS & set(settings.callers.auth) or settings.webhook.secret)


def ledger_rules(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if store.url is not the URL of a SQLite file or of PostgreSQL, or can be read in two ways."""
    url = settings.store.url
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        if _SQLITE.fullmatch(url) and url.startswith("sqlite:///~"):
            yield Problem("store.url", *NOT_EXPANDED)
        elif not _SQLITE.fullmatch(url):
            remedy = 'Use a URL such as "sqlite:///data/bridge.db", without options.'
            yield Problem("store.url", "is not the URL of a SQLite file.", remedy)
    elif scheme not in ("postgresql", "postgres"):
        remedy = 'Use a URL such as "sqlite:///data/bridge.db" or "postgresql://bridge@host/bridge".'
        yield Problem("store.url", "is not the URL of a supported database.", remedy)
    elif not _is_postgres(url):
        remedy = 'Use a URL such as "postgresql://bridge@host/bridge", with % escapes in names and passwords.'
        yield Problem("store.url", "is not a valid PostgreSQL URL.", remedy)
    elif _several_hosts_with_ipv6(url):
        remedy = (
            'Name them after the question mark, as in "postgresql://bridge@/bridge?host=db.example,[2001:db8::1]:5432".'
        )
        yield Problem("store.url", "has several hosts and an IPv6 address, which newer Pythons do not read.", remedy)
    else:
        for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True):
            if name in UNSUPPORTED or (name not in SUPPORTED and get_close_matches(name, SUPPORTED, n=1)):
                remedy = nearest(name, SUPPORTED, otherwise="Remove it.") if name not in UNSUPPORTED else "Remove it."
                yield Problem("store.url", f'has the parameter "{name}", which is not supported.', remedy)


SUPPORTED = (
    *("host", "port", "dbname", "database", "user", "password", "passfile", "service", "target_session_attrs"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
)
"""Parameters of libpq's URLs that asyncpg reads. It sends all others to the server as settings of the session.

https://magicstack.github.io/asyncpg/current/api/index.html#connection
"""

UNSUPPORTED = frozenset(
    (
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
        *("tcp_user_timeout", "hostaddr", "channel_binding", "client_encoding", "fallback_application_name"),
        *("gssencmode", "gssdelegation", "sslcompression", "sslcertmode", "sslcrldir", "sslsni", "requirepeer"),
        *("require_auth", "replication", "load_balance_hosts", "min_protocol_version", "max_protocol_version"),
    )
)
"""Parameters of libpq that PostgreSQL rejects as settings, or that would change what the bridge sets.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""


def _several_hosts_with_ipv6(url: str) -> bool:
    """Return whether `urlsplit`, which the driver uses too, may raise ValueError for a URL that libpq would read."""
    found = _POSTGRES.fullmatch(url)
    return found is not None and {"[", ","} <= set(found["hosts"])


def _is_postgres(url: str) -> bool:
    found = _POSTGRES.fullmatch(url)
    ports = re.findall(r":([0-9]+)(?=,|$)", found["hosts"]) if found else ()
    return found is not None and all(int(port) <= MAX_PORT for port in ports)


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Location:
    """A bucket, and the prefix of all keys in it: empty, or ending in a slash."""

    bucket: str
    prefix: str


def s3_location(text: str) -> S3Location | None:
    """Return the S3 location in a setting, None if it is a folder; raise ValueError if it is neither."""
    if not text.startswith(S3_SCHEME):
        if not text or _SCHEME.match(text) or not text.isprintable() or text != text.strip():
            raise ValueError("is not a folder.")
        return None
    bucket, _, prefix = text.removeprefix(S3_SCHEME).partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    is_relative = bool({".", ".."} & set(prefix.split("/")))
    is_valid = _BUCKET.fullmatch(bucket) and _PREFIX.fullmatch(prefix) and len(prefix) <= MAX_S3_PREFIX
    if is_relative or not is_valid:
        raise ValueError("is not a valid location in S3.")
    return S3Location(bucket=bucket, prefix=prefix)


def _storage(settings: Settings) -> Iterator[Problem]:
    store, s3 = settings.store, settings.s3
    if store.row_retention is not None and store.row_retention < store.retention:
        fault = "is shorter than store.retention, for which bytes are kept that the rows name."
        yield Problem("store.row_retention", fault, "Set it to at least that, or to the empty text to keep all rows.")
    is_valid = True
    for name, text in (("spool", store.spool), ("archive", store.archive)):
        try:
            if name == "spool" or text:
                s3_location(text)
        except ValueError as error:
            is_valid = False
            remedy = f'Use a path such as "data/{name}".'
            if text.lower().startswith("s3:"):
                remedy = 'Use a URL such as "s3://bucket/prefix", with letters, digits, "-", "_", "." and "=".'
            yield Problem(f"store.{name}", str(error), remedy)
    paths = {"spool": store.spool, "archive": store.archive}
    yield from (Problem(f"store.{name}", *NOT_EXPANDED) for name, path in paths.items() if path.startswith("~"))
    if is_valid and store.archive and _overlap(store.spool, store.archive):
        remedy = "Use separate folders or prefixes, because the cleanup of each deletes files that it does not expect."
        yield Problem("store.archive", "overlaps with store.spool.", remedy)
    if bool(s3.access_key_id.get_secret_value()) is not bool(s3.secret_access_key.get_secret_value()):
        remedy = "Set both, or neither if AWS_* variables, a profile or a role provide the keys."
        yield Problem("s3", "has only one of access_key_id and secret_access_key.", remedy)


def _overlap(spool: str, archive: str) -> bool:
    one, other = s3_location(spool), s3_location(archive)
    if one is not None and other is not None:
        nested = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
        return one.bucket == other.bucket and nested
    if one is not other:
        return False
    first, second = PurePath(spool), PurePath(archive)
    return first.is_relative_to(second) or second.is_relative_to(first)


def _addresses(settings: Settings) -> Iterator[Problem]:
    urls = [("testnod.base_url", settings.testnod.base_url), ("s3.endpoint_url", settings.s3.endpoint_url)]
    names = ("endpoint", "check_endpoint", "iam_endpoint")
    urls += [(f"codearts.{name}", getattr(settings.codearts, name)) for name in names]
    for key, url in urls:
        if (url or key == "testnod.base_url") and not _is_http_address(url):
            yield Problem(key, "is not a valid address.", "Use scheme and host only, such as https://host.example.")


def _is_http_address(url: str, *, may_have_user: bool = False) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0  # raises ValueError if it is not a number
    except ValueError:
        return False
    is_bare = not (parts.query or parts.fragment) and (may_have_user or parts.username is None)
    is_clean = may_have_user or (url.isprintable() and " " not in url)  # a variable easily gets a line break at its end
    return parts.scheme in ("http", "https") and bool(parts.hostname) and is_bare and port_is_valid and is_clean


def _limits(settings: Settings) -> Iterator[Problem]:
    server, polling, delivery = settings.server, settings.polling, settings.delivery
    if not server.max_report_size:
        yield Problem("server.max_report_size", "must be greater than 0.", 'Use a size such as "50 MiB".')
    for key, is_less, other in (
        ("server.max_request_size", server.max_request_size < server.max_report_size, "server.max_report_size"),
        ("polling.max_interval", polling.max_interval < polling.min_interval, "polling.min_interval"),
        (
            "delivery.retry_max_delay",
            delivery.retry_max_delay < delivery.retry_initial_delay,
            "delivery.retry_initial_delay",
        ),
    ):
        if is_less:
            yield Problem(key, f"must not be less than {other}.", "Increase it.")
    for key, duration in (
        ("polling.min_interval", polling.min_interval),
        ("polling.max_interval", polling.max_interval),
        ("delivery.retry_initial_delay", delivery.retry_initial_delay),
        ("delivery.retry_max_delay", delivery.retry_max_delay),
        ("delivery.lease_duration", delivery.lease_duration),
        ("delivery.give_up_after", delivery.give_up_after),
        ("polling.max_age", polling.max_age),
    ):
        if not duration:
            yield Problem(key, "must be greater than 0.", 'Use a duration such as "1s".')


def _outbound(settings: Settings) -> Iterator[Problem]:
    outbound = settings.outbound
    proxy = outbound.http_proxy.get_secret_value()
    if proxy and not (_is_http_address(proxy, may_have_user=True) and urlsplit(proxy).path in ("", "/")):
        remedy = "Use a URL such as http://proxy.example:3128, with user:password@ if the proxy requires them."
        yield Problem("outbound.http_proxy", "is not the address of a proxy.", remedy)
    if proxy and not settings.testnod.storage_hosts:
        remedy = 'List the hosts that reports are PUT to, such as "*.amazonaws.com": addresses cannot be checked there.'
        yield Problem("testnod.storage_hosts", "is required with outbound.http_proxy.", remedy)
    for index, entry in enumerate(outbound.no_proxy):
        try:
            read_no_proxy_entry(entry)
        except ValueError:
            remedy = 'Use "host", ".suffix" or "10.0.0.0/8", each with or without :port, or "*".'
            yield Problem(f"outbound.no_proxy[{index}]", "is neither a host nor a network.", remedy)
    if outbound.ca_file:
        try:
            read_authorities(outbound.ca_file)
        except ValueError as error:
            yield Problem("outbound.ca_file", f"{error}.", "Name a readable file with PEM certificates.")


def _codearts(codearts: CodeartsSettings) -> Iterator[Problem]:
    for name in CREDENTIALS[codearts.auth]:
        if not credential(codearts, name):
            here = "here" if name in ("user", "domain") else f"here, in {name}{FILE_SUFFIX},"
            remedy = f"Set it {here} or in {variable_of('codearts', name)}."
            yield Problem(f"codearts.{name}", f'is required with auth = "{codearts.auth}".', remedy)
    if codearts.region and not _REGION.fullmatch(codearts.region):
        yield Problem("codearts.region", "is not the name of a region.", 'Use a name such as "cn-north-4".')
    if codearts.auth == "password" and not codearts.region:
        for name in ("iam_endpoint", "project"):
            if not getattr(codearts, name):
                fault = 'is required with auth = "password".'
                yield Problem(f"codearts.{name}", fault, "Set it, or codearts.region.")


def credential(codearts: CodeartsSettings, name: str) -> str:
    """Return a setting of `[codearts]` as plain text, also if it is a secret."""
    value = getattr(codearts, name)
    return value if isinstance(value, str) else str(value.get_secret_value())


def _proxy(settings: Settings) -> Iterator[Problem]:
    for index, path in enumerate(settings.proxy.paths):
        if not _PATH.fullmatch(path):
            remedy = 'Use a path such as "/v1/job/*/*/build-info" or "PUT /v1/jobs/*/result/refresh", or "*" alone.'
            yield Problem(f"proxy.paths[{index}]", "is not a path.", remedy)
    for index, method in enumerate(settings.proxy.methods):
        if not _METHOD.fullmatch(method):
            yield Problem(f"proxy.methods[{index}]", "is not a method.", 'Use capitals, such as "GET".')


def _code_checks(settings: Settings) -> Iterator[Problem]:
    for index, route in enumerate(settings.routes):
        if (code_check := route.code_check) is None:
            continue
        key = f"routes[{index}].code_check"
        if not code_check.task_id and not code_check.job_id:
            yield Problem(f"{key}.task_id", "is missing.", "Set it to the id of a Check task, or remove the table.")
        for name, value in (("task_id", code_check.task_id), ("job_id", code_check.job_id)):
            if value and not _CHECK_ID.fullmatch(value):
                remedy = "An id has 1 to 32 letters and digits. Copy it from the address of its page in CodeArts Check."
                yield Problem(f"{key}.{name}", "is not an id of CodeArts Check.", remedy)
        if not code_check.timeout:
            yield Problem(f"{key}.timeout", "must be greater than 0.", 'Use a duration such as "10s".')
    if not settings.codearts.check_endpoint and any(route.code_check for route in settings.routes):
        remedy = "Use an address such as https://codearts-check.cn-north-4.myhuaweicloud.com."
        yield Problem("codearts.check_endpoint", "is missing, although a route has a code_check table.", remedy)


def _routes(settings: Settings) -> Iterator[Problem]:
    if not settings.routes:
        yield Problem("routes", "is missing.", "Add a [[routes]] table with name and project_token.")
    yield from repeated("routes", [route.name for route in settings.routes])
    for index, route in enumerate(settings.routes):
        key = f"routes[{index}]"
        if not route.name:
            yield Problem(f"{key}.name", "is missing.", "Give the route a unique name.")
        yield from invalid_name(key, route.name)
        if not route.project_token.get_secret_value():
            yield missing(f"{key}.project_token", variable_of("routes", route.name or "<NAME>", "project_token"))
        yield from _templates(key, route)
        yield from _rewrite_rules(key, route)
        for name in ROUTE_GLOBS:
            globs = getattr(route, name)
            if not (globs and all(globs)):
                fault = "is empty, so the route matches no build."
                yield Problem(f"{key}.{name}", fault, "Remove it to match every build.")
        for number, tag in enumerate(route.tags):
            if "{" in tag or "}" in tag or not tag.strip():
                remedy = "Use a fixed word, because TestNod compares runs with the same tags."
                yield Problem(f"{key}.tags[{number}]", "is empty or contains braces.", remedy)
        if not settings.codearts.endpoint:
            yield from _needs_codearts(key, route)


def _rewrite_rules(key: str, route: RouteSettings) -> Iterator[Problem]:
    if len(route.rewrite) > MAX_RULES:
        yield Problem(f"{key}.rewrite", f"has more than {MAX_RULES} tables.", "Join patterns with |.")
    for number, rule in enumerate(route.rewrite):
        try:
            compile_rule(RewriteRule(attribute=rule.attribute, pattern=rule.pattern, replacement=rule.replacement))
        except RuleFault as fault:
            yield Problem(f"{key}.rewrite[{number}].{fault.setting}", fault.fault, fault.remedy)


def _needs_codearts(key: str, route: RouteSettings) -> Iterator[Problem]:
    for name, is_used in (("mirror", route.mirror), ("result_suite", route.result_suite != "off")):
        if is_used:
            remedy = f"Set it to the address of CodeArts Build, or remove {name}."
            yield Problem(f"{key}.{name}", "requires codearts.endpoint.", remedy)


def _templates(key: str, route: RouteSettings) -> Iterator[Problem]:
    for name in TEMPLATES:
        template = getattr(route, name)
        unknown = unknown_fields(template)
        for field in unknown:
            remedy = f"Use one of {', '.join(TEMPLATE_FIELDS)}."
            yield Problem(f"{key}.{name}", f"contains the unknown field {{{field}}}.", remedy)
        if not unknown and set("{}$") & set(render(template, {})) and ("{" in template or "}" in template):
            yield Problem(f"{key}.{name}", "contains a brace or a $ beside a field.", "Write fields as in {job_id}.")
    if route.run_url and not _RUN_URL.match(route.run_url):
        remedy = "Use an address such as https://ci.example/{job_id}/{build_no}."
        yield Problem(f"{key}.run_url", "is not the address of a page.", remedy)
    absent = [f"{{{field}}}" for field in NEEDED_IN_BUILD_ID if f"{{{field}}}" not in route.build_id]
    if absent:
        remedy = "Add it. Otherwise builds share a run in TestNod."
        yield Problem(f"{key}.build_id", f"must contain {' and '.join(absent)}.", remedy)


def _placeholders(table: SettingsTable, key: str = "") -> Iterator[Problem]:
    """Yield a problem for each value that is still a variable or a placeholder: this file expands nothing."""
    for name, field in type(table).model_fields.items():
        value, path = getattr(table, name), f"{key}.{name}" if key else name
        if table_of(field) is None and name not in FREE_TEXT:
            members = value if isinstance(value, tuple) else (value,)
            if any(_is_placeholder(member) for member in members):
                remedy = "Write the value, or set it in the environment (config.example.toml shows how)."
                yield Problem(path, "contains a variable or a placeholder, which is not replaced.", remedy)
        elif isinstance(value, tuple):
            for index, member in enumerate(value):
                yield from _placeholders(member, f"{path}[{index}]")
        elif isinstance(value, SettingsTable):
            yield from _placeholders(value, path)


def _is_placeholder(value: object) -> bool:
    if isinstance(value, SecretStr):
        return bool(_WHOLE_PLACEHOLDER.fullmatch(value.get_secret_value()))
    return isinstance(value, str) and bool(_VARIABLE.search(value) or _WHOLE_PLACEHOLDER.fullmatch(value))
