"""The rules of `[client]` and of who the bridge is at CodeArts: the way out stands, and the credentials are whole.

It knows the settings only; how a call is made stands in client/.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from bridge.domain.no_proxy import read_exemption
from bridge.settings.authorities import read_authorities
from bridge.settings.complaints import Complaint
from bridge.settings.environment import variable_of
from bridge.settings.fields import FILE_SUFFIX
from bridge.settings.model import CodeartsSettings, Settings

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

NEEDED = {
    "none": (),
    "token": ("token",),
    "password": ("user", "password", "domain"),
    "aksk": ("access_key", "secret_key"),
}
"""What each way of `codearts.auth` cannot do without; password needs to know IAM and a project besides."""


def outward_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of everything that would keep a call from going out, or from being believed."""
    yield from _way_out(settings)
    yield from _identity(settings.codearts)


def plain(codearts: CodeartsSettings, name: str) -> str:
    """Return one of the credentials as text, secret or not."""
    value = getattr(codearts, name)
    text: str = value if isinstance(value, str) else value.get_secret_value()
    return text


def _way_out(settings: Settings) -> Iterator[Complaint]:
    client = settings.client
    proxy = client.proxy.get_secret_value()
    if proxy and not _is_proxy(proxy):
        remedy = "Write it like http://proxy.example:3128, with user:password@ where it wants them."
        yield Complaint("client.proxy", "is no address of a proxy.", remedy)
    if proxy and not settings.testnod.storage_hosts:
        remedy = 'Name the hosts that reports are PUT to, like "*.amazonaws.com": behind a proxy addresses are unseen.'
        yield Complaint("testnod.storage_hosts", "is missing, and client.proxy is set.", remedy)
    for index, entry in enumerate(client.no_proxy):
        try:
            read_exemption(entry)
        except ValueError:
            remedy = 'Write "host", ".suffix", "10.0.0.0/8", each with :port or without, or "*".'
            yield Complaint(f"client.no_proxy[{index}]", "is neither a host nor a network.", remedy)
    if client.ca_file:
        try:
            read_authorities(client.ca_file)
        except ValueError as error:
            yield Complaint("client.ca_file", f"{error}.", "Name a file with PEM certificates that may be read.")


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0  # reading it raises where it is no number
    except ValueError:
        return False
    plain_path = parts.path in ("", "/") and not (parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain_path and port_is_valid


def _identity(codearts: CodeartsSettings) -> Iterator[Complaint]:
    for name in NEEDED[codearts.auth]:
        if not plain(codearts, name):
            where = f"here, in {name}{FILE_SUFFIX}," if name not in ("user", "domain") else "here"
            remedy = f"Set it {where} or in {variable_of('codearts', name)}."
            yield Complaint(f"codearts.{name}", f'is missing, and auth is "{codearts.auth}".', remedy)
    if codearts.region and not _REGION.fullmatch(codearts.region):
        yield Complaint("codearts.region", "is no name of a region.", 'Write it like "cn-north-4".')
    if codearts.auth == "password" and not codearts.region:
        for name, what in (("iam_endpoint", "Tokens come from IAM"), ("project", "Tokens are for one project")):
            if not plain(codearts, name):
                fault = 'is missing, and auth is "password".'
                yield Complaint(f"codearts.{name}", fault, f"{what}: set it, or codearts.region.")
