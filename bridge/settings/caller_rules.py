"""Rules of `[callers]` that prevent access by mistake, and callers that could do nothing."""

import re
from collections.abc import Iterator
from ipaddress import ip_address

from bridge.domain.callers import IAM_NAME_PREFIX, PROJECT_NAME_PREFIX
from bridge.settings.environment import variable_of
from bridge.settings.model import KeySettings, Settings, TokenSettings, UserSettings
from bridge.settings.problems import Problem, invalid_name, missing, nearest, repeated

_ACCESS_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a listener on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def caller_rules(settings: Settings) -> Iterator[Problem]:
    """Yield every problem of `[callers]`."""
    callers = settings.callers
    if not callers.auth:
        yield Problem("callers.auth", "is empty.", 'Use "token", or "open" on loopback.')
    if "open" in callers.auth and not is_loopback(settings.server.host) and not callers.allow_open:
        remedy = 'Use "token", set server.host = "127.0.0.1", or set callers.allow_open = true.'
        yield Problem("callers.auth", "is open, so every client that reaches server.host could upload.", remedy)
    yield from _tokens(settings)
    yield from _keys(settings)
    yield from _users(settings)
    token_names = [token.name for token in callers.tokens]
    for index, key in enumerate(callers.keys):
        if key.name and key.name in token_names:
            fault = f"is also the name of callers.tokens[{token_names.index(key.name)}]."
            yield Problem(f"callers.keys[{index}].name", fault, "Use unique names.")


def _tokens(settings: Settings) -> Iterator[Problem]:
    callers = settings.callers
    if "token" in callers.auth and not callers.tokens:
        remedy = f"Add a [[callers.tokens]] table with name and token, or set {variable_of('callers', 'tokens')}."
        yield Problem("callers.tokens", 'is required with auth = "token".', remedy)
    yield from repeated("callers.tokens", [token.name for token in callers.tokens])
    for index, token in enumerate(callers.tokens):
        key = f"callers.tokens[{index}]"
        secret, digest = token.token.get_secret_value(), token.hash.get_secret_value()
        yield from _name(key, token.name)
        if secret and digest:
            yield Problem(f"{key}.hash", "is set, and token too.", "Keep one of the two.")
        if not secret and not digest:
            variable = variable_of("callers", "tokens", token.name or "<NAME>", "token")
            remedy = f"Set it here, in token_file, or in {variable}, or set hash."
            yield Problem(f"{key}.token", "is missing.", remedy)
        digests = [other.digest for other in callers.tokens[:index]]
        if (secret or digest) and token.digest in digests:
            fault = f"is also the token of callers.tokens[{digests.index(token.digest)}]."
            yield Problem(f"{key}.{'token' if secret else 'hash'}", fault, "Give each caller a separate token.")
        if digest and not _HASH.fullmatch(digest):
            yield Problem(f"{key}.hash", "is not sha256: and 64 hex digits.", "Create it with bridge hash-token.")
        yield from _rights(key, token, settings)


def _keys(settings: Settings) -> Iterator[Problem]:
    callers = settings.callers
    if "aksk" in callers.auth and not callers.keys:
        remedy = "Add a [[callers.keys]] table with name, access_key and secret_key."
        yield Problem("callers.keys", 'is required with auth = "aksk".', remedy)
    yield from repeated("callers.keys", [key.name for key in callers.keys])
    access_keys = [key.access_key.get_secret_value() for key in callers.keys]
    for index, access_key in enumerate(callers.keys):
        key = f"callers.keys[{index}]"
        yield from _name(key, access_key.name)
        for name in ("access_key", "secret_key"):
            if not getattr(access_key, name).get_secret_value():
                yield missing(f"{key}.{name}", variable_of("callers", "keys", access_key.name or "<NAME>", name))
        if access_keys[index] and not _ACCESS_KEY.fullmatch(access_keys[index]):
            remedy = "Use letters, digits, hyphens and underscores, 128 at most."
            yield Problem(f"{key}.access_key", "is not valid in a signature.", remedy)
        if access_keys[index] and access_keys[index] in access_keys[:index]:
            fault = f"is also the key of callers.keys[{access_keys.index(access_keys[index])}]."
            yield Problem(f"{key}.access_key", fault, "Give each caller a separate key.")
        yield from _rights(key, access_key, settings)


def _users(settings: Settings) -> Iterator[Problem]:
    callers, codearts = settings.callers, settings.codearts
    yield from repeated("callers.users", [users.name for users in callers.users])
    for index, users in enumerate(callers.users):
        key = f"callers.users[{index}]"
        if not users.name:
            yield Problem(f"{key}.name", "is missing.", 'Use the name of an IAM user, or a glob such as "ci-*".')
        yield from _rights(key, users, settings)
    if "iam" not in callers.auth:
        return
    if not codearts.iam_url:
        fault = 'is required with callers.auth = "iam".'
        yield Problem("codearts.iam_endpoint", fault, "Set it, or codearts.region.")
    if not codearts.domain:
        fault = "is missing, so users of every account of Huawei Cloud could upload."
        yield Problem("codearts.domain", fault, "Set it to the account whose users may upload.")
    if not callers.users and _has_several_projects(settings):
        remedy = 'Add a [[callers.users]] table with name = "*" and the routes that IAM users may use.'
        yield Problem("callers.users", "is required with more than one project_token.", remedy)


def _name(key: str, name: str) -> Iterator[Problem]:
    if not name:
        yield Problem(f"{key}.name", "is missing.", "Give the caller a name, which is shown with its uploads.")
    yield from invalid_name(key, name)
    for prefix, others in ((IAM_NAME_PREFIX, "IAM users"), (PROJECT_NAME_PREFIX, "callers with a project_token")):
        if name.startswith(prefix):
            yield Problem(f"{key}.name", f"begins with {prefix}, which stands for {others}.", "Rename it.")


def _rights(key: str, caller: TokenSettings | KeySettings | UserSettings, settings: Settings) -> Iterator[Problem]:
    if not caller.scopes:
        yield Problem(f"{key}.scopes", "is empty, so the caller may do nothing.", 'Use ["upload"].')
    if not caller.routes and _has_several_projects(settings):
        remedy = "List the routes that the caller may use."
        yield Problem(f"{key}.routes", "is required with more than one project_token.", remedy)
    routes = [route.name for route in settings.routes]
    for number, name in enumerate(caller.routes):
        if name not in routes and routes and all(routes):  # otherwise a problem of the routes is reported
            remedy = nearest(name, routes, otherwise="Use the name of a [[routes]] table.")
            yield Problem(f"{key}.routes[{number}]", "is not the name of a route.", remedy)


def _has_several_projects(settings: Settings) -> bool:
    return len({route.project_token.get_secret_value() for route in settings.routes} - {""}) > 1
