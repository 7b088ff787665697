"""What must hold between settings, and which must be set: each rule yields its complaints.

It sees the whole, typed settings; what a single value may be stands in model.py, who may come in in callers.py.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

from bridge.domain.routing import TEMPLATE_FIELDS, unknown_fields
from bridge.settings.bytes_rules import bytes_rules
from bridge.settings.callers import caller_rules, is_loopback
from bridge.settings.complaints import Complaint, missing
from bridge.settings.environment import variable_of
from bridge.settings.ledger import ledger_rules
from bridge.settings.model import RouteSettings, Settings
from bridge.settings.names import repeated, unfit
from bridge.settings.outward import outward_rules
from bridge.settings.proxy import proxy_rules
from bridge.settings.quality import quality_rules
from bridge.settings.tls import tls_rules

GLOBS = ("job_id", "project_id", "repo", "branch")
NEEDED_IN_BUILD_ID = ("job_id", "build_no")  # without them two builds would share a run


def broken_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of everything that does not fit together."""
    yield from _listeners(settings)
    yield from tls_rules(settings)
    yield from ledger_rules(settings)
    yield from bytes_rules(settings)
    yield from _upstreams(settings)
    yield from _orders(settings)
    yield from outward_rules(settings)
    yield from caller_rules(settings)
    yield from proxy_rules(settings)
    yield from quality_rules(settings)
    yield from _routes(settings)
    yield from _mirrors(settings)


def _listeners(settings: Settings) -> Iterator[Complaint]:
    server, admin = settings.server, settings.admin
    for key, host in (("server.host", server.host), ("admin.host", admin.host)):
        if not host:
            yield Complaint(key, "is empty.", 'Write an address to listen on, like "127.0.0.1" or "0.0.0.0".')
    if server.port == admin.port != 0 and (server.host == admin.host or "0.0.0.0" in (server.host, admin.host)):
        yield Complaint("admin.port", "is the server's port too.", "Give the two listeners different ports.")
    if not is_loopback(admin.host) and not admin.token:
        remedy = f"Set it here, in token_file, or in {variable_of('admin', 'token')}, or let admin.host be 127.0.0.1."
        yield Complaint("admin.token", "is missing, and admin.host can be reached from elsewhere.", remedy)
    for index, network in enumerate(server.trusted_proxies):
        try:
            ip_network(network)
        except ValueError:
            key = f"server.trusted_proxies[{index}]"
            yield Complaint(key, "is neither an address nor a network.", 'Write it like "10.0.0.0/8".')


def _upstreams(settings: Settings) -> Iterator[Complaint]:
    codearts = settings.codearts
    urls = [("testnod.base_url", settings.testnod.base_url), ("s3.endpoint_url", settings.s3.endpoint_url)]
    urls += [(f"codearts.{name}", getattr(codearts, name)) for name in ("endpoint", "check_endpoint", "iam_endpoint")]
    for key, url in urls:
        if (url or key == "testnod.base_url") and not _is_base(url):
            remedy = "Write scheme and host only, like https://host.example."
            yield Complaint(key, "is no address that calls can be made to.", remedy)
    for index, host in enumerate(settings.testnod.storage_hosts):
        if "/" in host or not host:
            key = f"testnod.storage_hosts[{index}]"
            yield Complaint(key, "is no host name.", 'Write it without scheme and path, like "*.amazonaws.com".')


def _mirrors(settings: Settings) -> Iterator[Complaint]:
    for index, route in enumerate(settings.routes):
        if route.mirror and not settings.codearts.endpoint:
            remedy = "Set it to CodeArts Build's address, or take mirror out."
            yield Complaint(f"routes[{index}].mirror", "needs codearts.endpoint, which is empty.", remedy)


def _orders(settings: Settings) -> Iterator[Complaint]:
    server, polling, delivery = settings.server, settings.polling, settings.delivery
    if not server.max_report_size:
        yield Complaint(
            "server.max_report_size", "is nought, and no report is that small.", 'Write "50 MiB", or leave it out.'
        )
    if server.max_report_size > server.max_request_size:
        remedy = "Raise it to max_report_size or more."
        yield Complaint("server.max_request_size", "is smaller than max_report_size.", remedy)
    if polling.min > polling.max:
        yield Complaint("polling.max", "is shorter than polling.min.", "Raise it to polling.min or more.")
    if delivery.first_delay > delivery.max_delay:
        remedy = "Raise it to first_delay or more."
        yield Complaint("delivery.max_delay", "is shorter than first_delay.", remedy)
    for key, duration in (
        ("polling.min", polling.min),
        ("polling.max", polling.max),
        ("delivery.first_delay", delivery.first_delay),
        ("delivery.max_delay", delivery.max_delay),
        ("delivery.lease", delivery.lease),
    ):
        if not duration:
            yield Complaint(key, "is nought, and would mean without a pause.", 'Write "1s" or more.')


def _routes(settings: Settings) -> Iterator[Complaint]:
    if not settings.routes:
        yield Complaint("routes", "is missing.", "Add a [[routes]] table with name and project_token.")
    yield from repeated("routes", [route.name for route in settings.routes])
    for index, route in enumerate(settings.routes):
        key = f"routes[{index}]"
        if not route.name:
            yield Complaint(f"{key}.name", "is missing.", "Give the route a name of its own.")
        yield from unfit(key, route.name)
        if not route.project_token.get_secret_value():
            yield missing(f"{key}.project_token", variable_of("routes", route.name or "<NAME>", "project_token"))
        yield from _templates(key, route)
        for name in GLOBS:
            globs = getattr(route, name)
            if not (globs and all(globs)):
                yield Complaint(f"{key}.{name}", "is empty, so that the route takes no build.", "Leave it out for any.")
        for number, tag in enumerate(route.tags):
            if "{" in tag or "}" in tag or not tag.strip():
                remedy = "Write a fixed word: TestNod compares runs with the same tags."
                yield Complaint(f"{key}.tags[{number}]", "is empty or holds braces.", remedy)


def _templates(key: str, route: RouteSettings) -> Iterator[Complaint]:
    for name in ("build_id", "run_url"):
        for field in unknown_fields(getattr(route, name)):
            remedy = f"Write one of {', '.join(TEMPLATE_FIELDS)}."
            yield Complaint(f"{key}.{name}", f"holds {{{field}}}, which is not known.", remedy)
    absent = [f"{{{field}}}" for field in NEEDED_IN_BUILD_ID if f"{{{field}}}" not in route.build_id]
    if absent:
        remedy = "Add it: TestNod would put several builds into one run."
        yield Complaint(f"{key}.build_id", f"lacks {' and '.join(absent)}.", remedy)


def _is_base(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0  # reading it raises where it is no number
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username is not None)
    in_one_piece = url.isprintable() and " " not in url  # a variable is easily set with the end of its line
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain and port_is_valid and in_one_piece
