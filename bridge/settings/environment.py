"""Settings from environment variables, which override those of the file: `BRIDGE_TESTNOD__BASE_URL`.

Tables in a list are addressed by name: `BRIDGE_ROUTES__SHOP__PROJECT_TOKEN`, which adds the table if the file does not
have it. Names are checked here, and values only for marks of a list or a quotation.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from bridge.settings.model import FILE_SUFFIX, Settings, SettingsTable, is_list, is_secret, table_of
from bridge.settings.problems import Problem, nearest
from bridge.values import dataclass

PREFIX = "BRIDGE_"
SEPARATOR = "__"
TOKENS = "BRIDGE_CALLERS__TOKENS"
"""The only list of tables that one variable can set: plain tokens, separated by commas."""

COMMANDS = frozenset({"BRIDGE_CONFIG", "BRIDGE_URL", "BRIDGE_TOKEN", "BRIDGE_ADMIN_URL", "BRIDGE_ADMIN_TOKEN"})
"""Variables of commands, which are not settings."""

SIMILAR = 0.85
"""How similar (0 to 1) a variable must be to a setting's variable to be reported as a misspelling."""

_SERVICE_HOST = "_SERVICE_HOST"
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""Endings of the variables that Kubernetes sets for each Service, for example one called `bridge` or `bridge-admin`.

https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class RawTable:
    """A table before validation."""

    key: str  # such as `routes[0].code_check`; empty for the whole file
    prefix: str  # of its variables; empty if it is in a list and has no name
    model: type[SettingsTable]
    values: dict[str, Any]


class _Absent(dict[str, Any]):
    """A table that is not in the file. The first assignment adds it to the table around it."""

    def __init__(self, parent: dict[str, Any], name: str) -> None:
        super().__init__()
        self._parent = parent
        self._name = name

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._parent[self._name] = self


def tables(
    values: dict[str, Any], model: type[SettingsTable] = Settings, key: str = "", prefix: str = PREFIX
) -> Iterator[RawTable]:
    """Yield every table of `values` and every table that it may contain, the outer before the inner."""
    yield RawTable(key=key, prefix=prefix, model=model, values=values)
    for name, field in model.model_fields.items():
        kind = table_of(field)
        if kind is None:
            continue
        inner, path = values.get(name, _Absent(values, name)), f"{key}.{name}" if key else name
        below = f"{prefix}{_upper(name)}{SEPARATOR}" if prefix else ""
        if not is_list(field):
            yield from tables(inner if isinstance(inner, dict) else {}, kind, path, below)
            continue
        for index, item in enumerate(inner if isinstance(inner, list | tuple) else ()):
            if isinstance(item, dict):
                named = below and isinstance(item.get("name"), str)
                item_prefix = f"{below}{_upper(item['name'])}{SEPARATOR}" if named else ""
                yield from tables(item, kind, f"{path}[{index}]", item_prefix)


@dataclass(frozen=True, slots=True)
class _Target:
    """The setting that a variable sets."""

    key: str  # of the setting, such as `routes[0].tags`
    values: dict[str, Any]
    name: str
    is_list: bool


def overlay(raw: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """Write the variables into `raw`.

    Return the variable of each key that was set, and a problem for each variable that matches no setting, or more than
    one. Names without `__` are ignored: Kubernetes sets such names, and commands read some.
    """
    problems: list[Problem] = []
    sources: dict[str, str] = {}
    if TOKENS in environ:
        problems += _quoted(TOKENS, environ[TOKENS], is_list=True)
        _callers(raw)["tokens"] = split(environ[TOKENS])
        sources |= {f"callers.tokens[{index}].token": TOKENS for index in range(len(_callers(raw)["tokens"]))}
    _expand_plain_tokens(raw)
    variables = sorted(name for name in environ if name.startswith(PREFIX) and SEPARATOR in name and name != TOKENS)
    variables = [name for name in variables if not _is_service_link(name, environ)]
    _add_named_tables(raw, variables)
    targets: dict[str, list[_Target]] = {}
    for variable, target in _targets(raw):
        targets.setdefault(variable, []).append(target)
    for variable in variables:
        match targets.get(variable, []):
            case [_] if (other := variable + _upper(FILE_SUFFIX)) in environ and other in targets:
                problems.append(Problem(variable, f"is set, and {other} too.", "Keep one of the two."))
            case [target]:
                text = environ[variable]
                problems += _quoted(variable, text, is_list=target.is_list)
                target.values.pop(target.name.removesuffix(FILE_SUFFIX), None)
                target.values.pop(target.name + FILE_SUFFIX, None)
                target.values[target.name] = split(text) if target.is_list else text
                sources[target.key] = sources[target.key.removesuffix(FILE_SUFFIX)] = variable
            case []:
                problems.append(Problem(variable, "is not a setting.", nearest(variable, targets)))
            case _:
                remedy = "Use names that differ in letters or digits."
                problems.append(Problem(variable, "matches several tables.", remedy))
    return sources, problems


def _add_named_tables(raw: dict[str, Any], variables: list[str]) -> None:
    """Add a table for each variable that names one which the file does not have, after those of the file."""
    present = {variable for variable, _ in _targets(raw)}
    for table in list(tables(raw)):
        for name, field in table.model.model_fields.items():
            member, listed = table_of(field), table.values.get(name, [])
            if member is None or not is_list(field) or "name" not in member.model_fields or not table.prefix:
                continue
            for variable in variables:
                below = f"{table.prefix}{_upper(name)}{SEPARATOR}"
                word, _, rest = variable.removeprefix(below).partition(SEPARATOR)
                if variable in present or not (word and rest and variable.startswith(below)):
                    continue
                added = RawTable(key="", prefix=f"{below}{word}{SEPARATOR}", model=member, values={})
                names = {found for found, _ in _targets_of(tables({}, member, "", added.prefix))}
                if variable in names and isinstance(listed, list):
                    present |= names
                    listed.append({"name": word.lower()})
                    table.values[name] = listed


def _quoted(variable: str, text: str, *, is_list: bool) -> Iterator[Problem]:
    """Yield a problem if the value is written as in the file: its quotation marks and brackets would be part of it."""
    if is_list and (text.startswith("{") or (text.startswith("[") and '"' in text)):
        yield Problem(variable, "is written as a list of TOML or JSON.", "Separate the values by commas, as in a,b.")
    elif len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        yield Problem(variable, "is in quotation marks, which would be part of the value.", "Remove them.")


def unused_variables(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each variable that sets nothing, but whose name is similar to that of a setting."""
    variables = [TOKENS, *(variable for variable, _ in _targets(settings.model_dump()))]
    meant = {variable.replace(SEPARATOR, "_"): variable for variable in variables}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or SEPARATOR in variable or variable in COMMANDS:
            continue
        if _looks_like_service_link(variable) and (variable not in meant or _SERVICE_ADDRESS.match(environ[variable])):
            continue
        if close := get_close_matches(variable, meant, n=1, cutoff=SIMILAR):
            yield f"{variable}: is not used, because it is not a setting. Did you mean {meant[close[0]]}?"


def variable_of(*parts: str) -> str:
    """Return the variable of a setting: ("routes", "shop", "tags") gives BRIDGE_ROUTES__SHOP__TAGS."""
    return PREFIX + SEPARATOR.join(_upper(part) for part in parts)


def split(text: str) -> list[str]:
    """Return the members of a list that is separated by commas, without spaces around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _expand_plain_tokens(raw: dict[str, Any]) -> None:
    """Replace plain strings in `callers.tokens` by tables, named `token-1`, `token-2` and so on."""
    tokens = _callers(raw).get("tokens")
    if isinstance(tokens, list):
        tokens[:] = [
            {"name": f"token-{number}", "token": token} if isinstance(token, str) else token
            for number, token in enumerate(tokens, start=1)
        ]


def _callers(raw: dict[str, Any]) -> dict[str, Any]:
    table = raw.setdefault("callers", {})
    return table if isinstance(table, dict) else {}


def _targets(raw: dict[str, Any]) -> Iterator[tuple[str, _Target]]:
    return _targets_of(tables(raw))


def _targets_of(found: Iterator[RawTable]) -> Iterator[tuple[str, _Target]]:
    for table in found:
        for name, field in table.model.model_fields.items() if table.prefix else ():
            if table_of(field) is not None:
                continue
            variable, key = table.prefix + _upper(name), f"{table.key}.{name}"
            yield variable, _Target(key, table.values, name, is_list(field))
            if is_secret(field):
                file = name + FILE_SUFFIX
                yield variable + _upper(FILE_SUFFIX), _Target(key + FILE_SUFFIX, table.values, file, is_list=False)


def _upper(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _is_service_link(variable: str, environ: Mapping[str, str]) -> bool:
    """Return whether Kubernetes set this name with `__`: names of a Service or its ports may contain `--`."""
    services = (name.removesuffix(_SERVICE_HOST) for name in environ if name.endswith(_SERVICE_HOST))
    return any(variable.startswith(service) and _SERVICE_LINK.fullmatch(variable, len(service)) for service in services)


def _looks_like_service_link(variable: str) -> bool:
    return any(_SERVICE_LINK.fullmatch(variable, match.start()) for match in re.finditer("_", variable))
