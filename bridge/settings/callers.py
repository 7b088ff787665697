"""The rules of `[callers]`: nobody gets in by an oversight.

It knows the settings only; how a token is compared stands in domain/callers.py.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address

from bridge.settings.complaints import Complaint, nearest
from bridge.settings.environment import variable_of
from bridge.settings.model import Settings
from bridge.settings.names import repeated

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def caller_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of everything in `[callers]` that lets in too many, or nobody."""
    callers = settings.callers
    if not callers.auth:
        yield Complaint("callers.auth", "is empty.", 'Write "token", or "open" on loopback.')
    if "open" in callers.auth and not is_loopback(settings.server.host) and not callers.allow_open:
        remedy = 'Use "token", let server.host be 127.0.0.1, or set callers.allow_open = true.'
        yield Complaint("callers.auth", "is open, and anybody who reaches server.host could upload.", remedy)
    if "token" in callers.auth and not callers.tokens:
        remedy = f"Add a [[callers.tokens]] table with name and token, or set {variable_of('callers', 'tokens')}."
        yield Complaint("callers.tokens", 'is missing, and auth is "token".', remedy)
    yield from repeated("callers.tokens", [token.name for token in callers.tokens])
    yield from _tokens(settings)


def _tokens(settings: Settings) -> Iterator[Complaint]:
    routes = [route.name for route in settings.routes]
    for index, token in enumerate(settings.callers.tokens):
        key = f"callers.tokens[{index}]"
        secret, digest = token.token.get_secret_value(), token.hash.get_secret_value()
        if not token.name:
            yield Complaint(f"{key}.name", "is missing.", "Give the caller a name: it stands beside what it uploads.")
        if secret and digest:
            yield Complaint(f"{key}.hash", "is set, and token too.", "Keep one of the two.")
        if not secret and not digest:
            variable = variable_of("callers", "tokens", token.name or "<NAME>", "token")
            remedy = f"Set it here, in token_file, or in {variable}, or give its hash."
            yield Complaint(f"{key}.token", "is missing.", remedy)
        if digest and not _HASH.fullmatch(digest):
            yield Complaint(f"{key}.hash", "is not sha256: and 64 hex digits.", "Make one with bridge hash-token.")
        if not token.scopes:
            yield Complaint(f"{key}.scopes", "is empty: the token could do nothing.", 'Write ["upload"].')
        for number, name in enumerate(token.routes):
            if name not in routes and routes and all(routes):  # else the routes have complaints of their own
                yield Complaint(f"{key}.routes[{number}]", "is the name of no route.", nearest(name, routes))
