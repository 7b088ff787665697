"""What must hold between settings, and which must be set: each rule yields its complaints.

It sees the whole, typed settings; what a single value may be stands in model.py, who may come in in callers.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import PurePath
from urllib.parse import urlsplit

from bridge.domain.no_proxy import read_no_proxy_entry
from bridge.domain.routing import TEMPLATE_FIELDS, unknown_fields
from bridge.settings.caller_rules import caller_rules, is_loopback
from bridge.settings.environment import variable_of
from bridge.settings.introspection import FILE_SUFFIX
from bridge.settings.model import CodeartsSettings, RouteSettings, Settings
from bridge.settings.problems import Problem, missing, repeated, unfit
from bridge.settings.tls_files import CertificateFiles, read_authorities

# The rules of `[outbound]` and of who the bridge is at CodeArts: the way out stands, and the credentials are whole.
#
# It knows the settings only; how a call is made stands in client/.


_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

NEEDED = {
    "none": (),
    "token": ("token",),
    "password": ("user", "password", "domain"),
    "aksk": ("access_key", "secret_key"),
}
"""What each way of `codearts.auth` cannot do without; password needs to know IAM and a project besides."""


def client_rules(settings: Settings) -> Iterator[Problem]:
    """Complain of everything that would keep a call from going out, or from being believed."""
    yield from _way_out(settings)
    yield from _identity(settings.codearts)


def plain(codearts: CodeartsSettings, name: str) -> str:
    """Return one of the credentials as text, secret or not."""
    value = getattr(codearts, name)
    text: str = value if isinstance(value, str) else value.get_secret_value()
    return text


def _way_out(settings: Settings) -> Iterator[Problem]:
    outbound = settings.outbound
    proxy = outbound.http_proxy.get_secret_value()
    if proxy and not _is_proxy(proxy):
        remedy = "Write it like http://proxy.example:3128, with user:password@ where it wants them."
        yield Problem("outbound.http_proxy", "is no address of a proxy.", remedy)
    if proxy and not settings.testnod.storage_hosts:
        remedy = 'Name the hosts that reports are PUT to, like "*.amazonaws.com": behind a proxy addresses are unseen.'
        yield Problem("testnod.storage_hosts", "is missing, and outbound.http_proxy is set.", remedy)
    for index, entry in enumerate(outbound.no_proxy):
        try:
            read_no_proxy_entry(entry)
        except ValueError:
            remedy = 'Write "host", ".suffix", "10.0.0.0/8", each with :port or without, or "*".'
            yield Problem(f"outbound.no_proxy[{index}]", "is neither a host nor a network.", remedy)
    if outbound.ca_file:
        try:
            read_authorities(outbound.ca_file)
        except ValueError as error:
            yield Problem("outbound.ca_file", f"{error}.", "Name a file with PEM certificates that may be read.")


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0  # reading it raises where it is no number
    except ValueError:
        return False
    plain_path = parts.path in ("", "/") and not (parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain_path and port_is_valid


def _identity(codearts: CodeartsSettings) -> Iterator[Problem]:
    for name in NEEDED[codearts.auth]:
        if not plain(codearts, name):
            where = f"here, in {name}{FILE_SUFFIX}," if name not in ("user", "domain") else "here"
            remedy = f"Set it {where} or in {variable_of('codearts', name)}."
            yield Problem(f"codearts.{name}", f'is missing, and auth is "{codearts.auth}".', remedy)
    if codearts.region and not _REGION.fullmatch(codearts.region):
        yield Problem("codearts.region", "is no name of a region.", 'Write it like "cn-north-4".')
    if codearts.auth == "password" and not codearts.region:
        for name, what in (("iam_endpoint", "Tokens come from IAM"), ("project", "Tokens are for one project")):
            if not plain(codearts, name):
                fault = 'is missing, and auth is "password".'
                yield Problem(f"codearts.{name}", fault, f"{what}: set it, or codearts.region.")


# The rules of `store.url`: a file of SQLite's, or a PostgreSQL that all who read the URL find alike.
#
# It knows the settings only. Where a password ends has one reading: what is taken for a host is shown.


KEY = "store.url"
MAX_PORT = 65_535

_SQLITE = re.compile(r"sqlite:///[^:?#][^?#]*")
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^@:/?#,\[\]\s]*)(?::[0-9]{1,5})?"
_PAIR = r"[^#&=]+=[^#&]*"
_POSTGRES = re.compile(
    rf"postgres(?:ql)?://(?:[^/?#]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/[^@?#]*)?(?:\?{_PAIR}(?:&{_PAIR})*)?"
)


def store_rules(settings: Settings) -> Iterator[Problem]:
    """Complain of a URL that names no ledger, or perhaps another one than was meant."""
    url = settings.store.url
    match url.partition(":")[0]:
        case "sqlite":
            if not _SQLITE.fullmatch(url):
                remedy = 'Write it like "sqlite:///data/bridge.db", with nothing behind the file\'s name.'
                yield Problem(KEY, "names no file.", remedy)
        case "postgresql" | "postgres":
            if not _is_postgres(url):
                remedy = 'Write it like "postgresql://bridge@host/bridge", with % escapes in names and password.'
                yield Problem(KEY, "is no URL of PostgreSQL.", remedy)
        case _:
            remedy = 'Write it like "sqlite:///data/bridge.db", or "postgresql://bridge@host/bridge".'
            yield Problem(KEY, "is no ledger.", remedy)


def _is_postgres(url: str) -> bool:
    found = _POSTGRES.fullmatch(url)
    ports = re.findall(r":([0-9]+)(?=,|$)", found["hosts"]) if found else ()
    return found is not None and all(int(port) <= MAX_PORT for port in ports)


# Where bytes may lie, in a folder or in S3, and what must hold between these settings.
#
# It opens nothing. Names of buckets follow "Bucket naming rules" of the S3 user guide.


SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9._=-]+/)*")
MAX_PREFIX = 512  # S3's keys have 1,024 bytes at most
IN_S3 = 'Write it like "s3://bucket/prefix", with letters, digits, "-", "_", "." and "=".'


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Location:
    """A bucket and what all keys there begin with: empty, or ending in a slash."""

    bucket: str
    prefix: str


def s3_location(text: str) -> S3Location | None:
    """Return the place in S3 that a setting names, None where it names a folder; raise ValueError for neither."""
    if not text.startswith(SCHEME):
        if not text or "://" in text:
            raise ValueError("is no folder.")
        return None
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    steps = set(prefix.split("/"))
    if (
        not _BUCKET.fullmatch(bucket)
        or not _PREFIX.fullmatch(prefix)
        or steps & {".", ".."}
        or len(prefix) > MAX_PREFIX
    ):
        raise ValueError("is no place in S3.")
    return S3Location(bucket=bucket, prefix=prefix)


def storage_rules(settings: Settings) -> Iterator[Problem]:
    """Complain of a spool, an archive or an S3 account that cannot be used."""
    store, s3 = settings.store, settings.s3
    well = True
    for key, text, example in (("spool", store.spool, "data/spool"), ("archive", store.archive, "data/archive")):
        try:
            if key == "spool" or text:
                s3_location(text)
        except ValueError as error:
            well = False
            yield Problem(f"store.{key}", str(error), IN_S3 if SCHEME in text else f'Write it like "{example}".')
    if well and store.archive and _overlap(store.spool, store.archive):
        remedy = "Give each a folder or prefix of its own: the janitor of one would remove what the other keeps."
        yield Problem("store.archive", "lies in the spool, or the spool in it.", remedy)
    if bool(s3.access_key_id.get_secret_value()) is not bool(s3.secret_access_key.get_secret_value()):
        remedy = "Set both, or neither where the machine's surroundings hold the keys."
        yield Problem("s3", "has one of access_key_id and secret_access_key without the other.", remedy)


def storage_warnings(settings: Settings) -> Iterator[str]:
    """Advise on S3 that is set up and not used, or can be read on the way."""
    s3 = settings.s3
    in_s3 = SCHEME in settings.store.spool + settings.store.archive
    if not in_s3 and any((s3.endpoint_url, s3.region, s3.access_key_id.get_secret_value())):
        yield "s3: is not used, because neither store.spool nor store.archive is in S3. Take it out, or use it."
    parts = urlsplit(s3.endpoint_url)
    if in_s3 and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield "s3.endpoint_url: is plain http, so reports can be read on the way. Use https outside of trials."


def _overlap(spool: str, archive: str) -> bool:
    one, other = s3_location(spool), s3_location(archive)
    if one is None or other is None:
        if one is not other:
            return False
        first, second = PurePath(spool), PurePath(archive)
        return first.is_relative_to(second) or second.is_relative_to(first)
    below = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
    return one.bucket == other.bucket and below


# The rules of `[proxy]`: each entry can take some call.
#
# It knows the settings only; how a path is matched stands in server/proxy/authorization.py.


_METHOD = re.compile(r"[A-Z]+")
_PATH = re.compile(r"(?:[A-Z]+ )?(?:\*|(?:/[^/?#\s]+)+/?)")


def proxy_rules(settings: Settings) -> Iterator[Problem]:
    """Complain of paths and methods that no call could ever have."""
    for index, path in enumerate(settings.proxy.paths):
        if not _PATH.fullmatch(path):
            remedy = 'Write it like "/v1/job/*/*/build-info", "PUT /v1/jobs/*/result/refresh", or "*" alone.'
            yield Problem(f"proxy.paths[{index}]", "is no path.", remedy)
    for index, method in enumerate(settings.proxy.methods):
        if not _METHOD.fullmatch(method):
            yield Problem(f"proxy.methods[{index}]", "is no method.", 'Write it in capitals, like "GET".')


# The rules of `[routes.code_check]`: somebody can be asked, about something, and is waited for.
#
# It knows the settings only; what becomes of an answer stands in domain/code_check/models.py.


_ID = re.compile(r"[0-9A-Za-z]{1,32}")  # "1 to 32 characters" (codearts-check-refresh-report)


def code_check_rules(settings: Settings) -> Iterator[Problem]:
    """Complain of every table that could never bring a report of CodeArts Check."""
    asked = False
    for index, route in enumerate(settings.routes):
        if (code_check := route.code_check) is None:
            continue
        asked = True
        key = f"routes[{index}].code_check"
        if not code_check.task_id and not code_check.job_id:
            yield Problem(f"{key}.task_id", "is missing.", "Name the task of CodeArts Check, or take the table out.")
        for name, value in (("task_id", code_check.task_id), ("job_id", code_check.job_id)):
            if value and not _ID.fullmatch(value):
                remedy = "Copy it from the address of its page in CodeArts Check."
                yield Problem(f"{key}.{name}", "is no id of CodeArts Check: 1 to 32 letters and digits.", remedy)
        if not code_check.timeout:
            yield Problem(f"{key}.timeout", "is nought, so Check would never be asked.", 'Write "10s" or more.')
    if asked and not settings.codearts.check_endpoint:
        remedy = "Write it like https://codearts-check.cn-north-4.myhuaweicloud.com."
        yield Problem("codearts.check_endpoint", "is missing, and a route has a code_check table.", remedy)


# The rules of TLS on the server listener: the pair is whole, and no token crosses a network in the clear.
#
# It knows the settings only; how the pair is used and renewed stands in server/http/tls.py.


SHOWN_SECRETS = frozenset({"token", "iam"})
"""Schemes that send the secret itself, as the hook does: whoever reads it can be them. A signature shows no key."""


def tls_rules(settings: Settings) -> Iterator[Problem]:
    """Complain of half a pair, of one that cannot be used, and of tokens that others could read."""
    server = settings.server
    names = ("tls_cert_file", "tls_key_file")
    absent = [name for name in names if not getattr(server, name)]
    if len(absent) == 1:
        other = next(name for name in names if name not in absent)
        yield Problem(f"server.{absent[0]}", f"is missing, and {other} is set.", "Set both, or neither.")
    elif not absent:
        try:
            CertificateFiles(cert_file=server.tls_cert_file, key_file=server.tls_key_file).load()
        except ValueError as error:
            remedy = "Name the certificate with its chain, and its key without a password."
            yield Problem("server.tls_cert_file", f"{error}.", remedy)
    elif shows_secrets(settings):
        yield Problem(
            "server.behind_tls_proxy",
            "is not true, and tokens would cross the network in the clear.",
            "Write behind_tls_proxy = true under [server] if a proxy in front speaks TLS. "
            'Else write tls_cert_file and tls_key_file there, or host = "127.0.0.1".',
        )


def shows_secrets(settings: Settings) -> bool:
    """Tell whether tokens would come in from elsewhere, and nobody has said that they come by TLS."""
    server = settings.server
    safe = server.behind_tls_proxy or is_loopback(server.host or "localhost")  # an empty host is another rule's
    return bool(SHOWN_SECRETS & set(settings.callers.auth) or settings.webhook.secret) and not safe


GLOBS = ("job_id", "project_id", "repo", "branch")
NEEDED_IN_BUILD_ID = ("job_id", "build_no")  # without them two builds would share a run


def broken_rules(settings: Settings) -> Iterator[Problem]:
    """Complain of everything that does not fit together."""
    yield from _listeners(settings)
    yield from tls_rules(settings)
    yield from store_rules(settings)
    yield from storage_rules(settings)
    yield from _upstreams(settings)
    yield from _orders(settings)
    yield from client_rules(settings)
    yield from caller_rules(settings)
    yield from proxy_rules(settings)
    yield from code_check_rules(settings)
    yield from _routes(settings)
    yield from _mirrors(settings)


def _listeners(settings: Settings) -> Iterator[Problem]:
    server, admin = settings.server, settings.admin
    for key, host in (("server.host", server.host), ("admin.host", admin.host)):
        if not host:
            yield Problem(key, "is empty.", 'Write an address to listen on, like "127.0.0.1" or "0.0.0.0".')
    if server.port == admin.port != 0 and (server.host == admin.host or "0.0.0.0" in (server.host, admin.host)):
        yield Problem("admin.port", "is the server's port too.", "Give the two listeners different ports.")
    if not is_loopback(admin.host) and not admin.token:
        remedy = f"Set it here, in token_file, or in {variable_of('admin', 'token')}, or let admin.host be 127.0.0.1."
        yield Problem("admin.token", "is missing, and admin.host can be reached from elsewhere.", remedy)
    for index, network in enumerate(server.trusted_proxies):
        try:
            ip_network(network)
        except ValueError:
            key = f"server.trusted_proxies[{index}]"
            yield Problem(key, "is neither an address nor a network.", 'Write it like "10.0.0.0/8".')


def _upstreams(settings: Settings) -> Iterator[Problem]:
    codearts = settings.codearts
    urls = [("testnod.base_url", settings.testnod.base_url), ("s3.endpoint_url", settings.s3.endpoint_url)]
    urls += [(f"codearts.{name}", getattr(codearts, name)) for name in ("endpoint", "check_endpoint", "iam_endpoint")]
    for key, url in urls:
        if (url or key == "testnod.base_url") and not _is_base(url):
            remedy = "Write scheme and host only, like https://host.example."
            yield Problem(key, "is no address that calls can be made to.", remedy)
    for index, host in enumerate(settings.testnod.storage_hosts):
        if "/" in host or not host:
            key = f"testnod.storage_hosts[{index}]"
            yield Problem(key, "is no host name.", 'Write it without scheme and path, like "*.amazonaws.com".')


def _mirrors(settings: Settings) -> Iterator[Problem]:
    for index, route in enumerate(settings.routes):
        if route.mirror and not settings.codearts.endpoint:
            remedy = "Set it to CodeArts Build's address, or take mirror out."
            yield Problem(f"routes[{index}].mirror", "needs codearts.endpoint, which is empty.", remedy)


def _orders(settings: Settings) -> Iterator[Problem]:
    server, polling, delivery = settings.server, settings.polling, settings.delivery
    if not server.max_report_size:
        yield Problem(
            "server.max_report_size", "is nought, and no report is that small.", 'Write "50 MiB", or leave it out.'
        )
    if server.max_report_size > server.max_request_size:
        remedy = "Raise it to max_report_size or more."
        yield Problem("server.max_request_size", "is smaller than max_report_size.", remedy)
    if polling.min_interval > polling.max_interval:
        yield Problem(
            "polling.max_interval", "is shorter than polling.min_interval.", "Raise it to polling.min_interval or more."
        )
    if delivery.retry_initial_delay > delivery.retry_max_delay:
        remedy = "Raise it to retry_initial_delay or more."
        yield Problem("delivery.retry_max_delay", "is shorter than retry_initial_delay.", remedy)
    for key, duration in (
        ("polling.min_interval", polling.min_interval),
        ("polling.max_interval", polling.max_interval),
        ("delivery.retry_initial_delay", delivery.retry_initial_delay),
        ("delivery.retry_max_delay", delivery.retry_max_delay),
        ("delivery.lease_duration", delivery.lease_duration),
    ):
        if not duration:
            yield Problem(key, "is nought, and would mean without a pause.", 'Write "1s" or more.')


def _routes(settings: Settings) -> Iterator[Problem]:
    if not settings.routes:
        yield Problem("routes", "is missing.", "Add a [[routes]] table with name and project_token.")
    yield from repeated("routes", [route.name for route in settings.routes])
    for index, route in enumerate(settings.routes):
        key = f"routes[{index}]"
        if not route.name:
            yield Problem(f"{key}.name", "is missing.", "Give the route a name of its own.")
        yield from unfit(key, route.name)
        if not route.project_token.get_secret_value():
            yield missing(f"{key}.project_token", variable_of("routes", route.name or "<NAME>", "project_token"))
        yield from _templates(key, route)
        for name in GLOBS:
            globs = getattr(route, name)
            if not (globs and all(globs)):
                yield Problem(f"{key}.{name}", "is empty, so that the route takes no build.", "Leave it out for any.")
        for number, tag in enumerate(route.tags):
            if "{" in tag or "}" in tag or not tag.strip():
                remedy = "Write a fixed word: TestNod compares runs with the same tags."
                yield Problem(f"{key}.tags[{number}]", "is empty or holds braces.", remedy)


def _templates(key: str, route: RouteSettings) -> Iterator[Problem]:
    for name in ("build_id", "run_url"):
        for field in unknown_fields(getattr(route, name)):
            remedy = f"Write one of {', '.join(TEMPLATE_FIELDS)}."
            yield Problem(f"{key}.{name}", f"holds {{{field}}}, which is not known.", remedy)
    absent = [f"{{{field}}}" for field in NEEDED_IN_BUILD_ID if f"{{{field}}}" not in route.build_id]
    if absent:
        remedy = "Add it: TestNod would put several builds into one run."
        yield Problem(f"{key}.build_id", f"lacks {' and '.join(absent)}.", remedy)


def _is_base(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0  # reading it raises where it is no number
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username is not None)
    in_one_piece = url.isprintable() and " " not in url  # a variable is easily set with the end of its line
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain and port_is_valid and in_one_piece
