"""Settings from the environment, laid over those of the file: `BRIDGE_TESTNOD__BASE_URL`.

Tables of a list go by their name (`BRIDGE_ROUTES__SHOP__PROJECT_TOKEN`). It checks names only, never values.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from bridge.settings.introspection import FILE_SUFFIX, is_list, is_secret, is_table_list, table_of
from bridge.settings.model import Settings, SettingsTable
from bridge.settings.problems import Problem, nearest

PREFIX = "BRIDGE_"
SEPARATOR = "__"
TOKENS = "BRIDGE_CALLERS__TOKENS"
"""The one list of tables that can be given whole: plain tokens, comma separated."""

COMMANDS = frozenset({"BRIDGE_CONFIG", "BRIDGE_URL", "BRIDGE_TOKEN", "BRIDGE_ADMIN_URL", "BRIDGE_ADMIN_TOKEN"})
"""Variables of commands: their names look like settings and are none."""

CLOSE = 0.85
"""How similar a variable must be to that of a setting to be taken for a misspelling of it."""

_SERVICE_HOST = "_SERVICE_HOST"
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""How the names end that Kubernetes sets in every pod for each Service: here for one called `bridge` or `bridge-…`.

https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)

Place = tuple[dict[str, Any], str, bool]
"""A table of the file, a name in it, and whether a list stands there."""


class _Later(dict[str, Any]):
    """A table that the file leaves out and that means something by being there: its first setting puts it there."""

    def __init__(self, within: dict[str, Any], name: str) -> None:
        super().__init__()
        self._within = within
        self._name = name

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._within[self._name] = self


def overlay(raw: dict[str, Any], environ: Mapping[str, str]) -> list[Problem]:
    """Write the variables into `raw`; complain of those that name no setting, or more than one.

    A name without `__` is never complained of: Kubernetes sets such names, and commands have theirs.
    """
    if TOKENS in environ:
        _table(raw, "callers")["tokens"] = split(environ[TOKENS])
    name_tokens(raw)
    places: dict[str, list[Place]] = {}
    for variable, place in _places(Settings, raw, PREFIX):
        places.setdefault(variable, []).append(place)
    complaints = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or SEPARATOR not in variable or variable == TOKENS:
            continue
        match places.get(variable, []):
            case [_] if (other := variable + _upper(FILE_SUFFIX)) in environ and other in places:
                complaints.append(Problem(variable, f"is set, and {other} too.", "Keep one of the two."))
            case [(table, name, listed)]:
                table.pop(name.removesuffix(FILE_SUFFIX), None)
                table.pop(name + FILE_SUFFIX, None)
                table[name] = split(environ[variable]) if listed else environ[variable]
            case []:
                if not _is_service_link(variable, environ):
                    complaints.append(Problem(variable, "names no setting.", nearest(variable, places)))
            case _:
                complaints.append(Problem(variable, "names several tables.", "Give them names that differ in more."))
    return complaints


def unused_variables(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each variable that sets nothing and whose name is close to that of a setting."""
    variables = [TOKENS, *(variable for variable, _ in _places(Settings, settings.model_dump(), PREFIX))]
    meant = {variable.replace(SEPARATOR, "_"): variable for variable in variables}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or SEPARATOR in variable or variable in COMMANDS:
            continue
        if _looks_like_service_link(variable) and (variable not in meant or _SERVICE_ADDRESS.match(environ[variable])):
            continue
        if close := get_close_matches(variable, meant, n=1, cutoff=CLOSE):
            yield f"{variable}: is not used, because it names no setting. Did you mean {meant[close[0]]}?"


def variable_of(*parts: str) -> str:
    """Return the variable of a setting: ("routes", "shop", "tags") → BRIDGE_ROUTES__SHOP__TAGS."""
    return PREFIX + SEPARATOR.join(_upper(part) for part in parts)


def name_tokens(raw: dict[str, Any]) -> None:
    """Give plain strings among `callers.tokens` a table and a name, `token-1` being the first."""
    tokens = _table(raw, "callers").get("tokens")
    if not isinstance(tokens, list):
        return
    for index, token in enumerate(tokens):
        if isinstance(token, str):
            tokens[index] = {"name": f"token-{index + 1}", "token": token}


def split(text: str) -> list[str]:
    """Read a comma separated list, blanks around its members dropped."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _places(table: type[SettingsTable], raw: dict[str, Any], prefix: str) -> Iterator[tuple[str, Place]]:
    for name, field in table.model_fields.items():
        variable = prefix + _upper(name)
        kind = table_of(field)
        if kind is None:
            yield variable, (raw, name, is_list(field))
            if is_secret(field):
                yield variable + _upper(FILE_SUFFIX), (raw, name + FILE_SUFFIX, False)
        elif is_table_list(field):
            items = raw.get(name)
            for item in items if isinstance(items, list | tuple) else []:
                if isinstance(item, dict) and isinstance(item.get("name"), str):
                    yield from _places(kind, item, f"{variable}{SEPARATOR}{_upper(item['name'])}{SEPARATOR}")
        else:
            is_there = name in raw or field.default is not None
            yield from _places(kind, _table(raw, name) if is_there else _Later(raw, name), variable + SEPARATOR)


def _table(raw: dict[str, Any], name: str) -> dict[str, Any]:
    table = raw.setdefault(name, {})
    return table if isinstance(table, dict) else {}


def _upper(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _is_service_link(variable: str, environ: Mapping[str, str]) -> bool:
    """Return whether Kubernetes set this name with `__`: a Service or its port may have two hyphens in a row."""
    services = (name.removesuffix(_SERVICE_HOST) for name in environ if name.endswith(_SERVICE_HOST))
    return any(variable.startswith(service) and _SERVICE_LINK.fullmatch(variable, len(service)) for service in services)


def _looks_like_service_link(variable: str) -> bool:
    """Return whether the name could be one of a Service, whatever else is set."""
    return any(_SERVICE_LINK.fullmatch(variable, match.start()) for match in re.finditer("_", variable))
