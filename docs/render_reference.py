"""Render the pages of docs/reference/ from the code: settings, API, metrics and commands. Run by `make docs`."""
# ruff: noqa: INP001 -- docs/ is no package; run as `python -m docs.render_reference`

import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer

from bridge import cli
from bridge.commands.upload.options import parser as upload_parser
from bridge.server.admin.openapi import document
from bridge.settings.environment import variable_of
from bridge.telemetry.metrics import Metrics

FOLDER = Path(__file__).parent / "reference"

ANY_NAME = "anyname"

MADE = "This page is made from the code by `make docs`.\n"

# -- settings ----------------------------------------------------------------------------------------------------------

SETTINGS = f"""\
# Settings

{MADE}
One TOML file; `bridge init --example` writes it with everything below. Durations are text such as `"500ms"`, `"1h30m"`
or `"30d"`, sizes text such as `"50 MiB"`. Each setting can also come from the variable in the last column, which
overrides the file; `<NAME>` is the name of the table in capitals. A secret can also be read from a file: append `_file`
to the setting, or `_FILE` to the variable.

"""

_TABLE = re.compile(r"#?(\[+[\w.]+\]+)")
_SETTING = re.compile(r"#{0,2}(\w+) = (.*?)(?:  # (.*))?")


def settings_page() -> str:
    """Return the page of settings, from the example file."""
    lines = (files("bridge") / "config.example.toml").read_text(encoding="utf-8").splitlines()
    parts = [SETTINGS]
    comment: list[str] = []
    known: set[str] = set()
    table = ""
    for line in lines:
        if heading := _TABLE.fullmatch(line):
            table, known = heading[1], set()
            note = f"{' '.join(comment)}\n\n" if comment else ""
            parts.append(f"\n## `{table}`\n\n{note}| setting | default | | variable |\n|---|---|---|---|\n")
        elif (found := _SETTING.fullmatch(line)) and table:
            name, value, text = found.groups()
            if name not in known and line.startswith("#"):
                known.add(name)
                default = "" if line.startswith("##") else f"`{value}`"
                parts.append(f"| `{name}` | {default} | {_cell(text or '')} | {_variable(table, name)} |\n")
        comment = [*comment, line.removeprefix("# ")] if line.startswith("# ") else []
    return "".join(parts)


def _variable(table: str, name: str) -> str:
    path = table.strip("[]").split(".")
    if table == "[[routes.rewrite]]":
        return ""  # tables without a name
    if path[0] == "routes":
        path.insert(1, ANY_NAME)
    elif table.startswith("[["):
        path.append(ANY_NAME)
    return f"`{variable_of(*path, name).replace(ANY_NAME.upper(), '<NAME>')}`"


# -- API ---------------------------------------------------------------------------------------------------------------

API = f"""\
# Admin API

{MADE}
The admin listener serves it at `:8081`, with its description in OpenAPI at `/api/v1/openapi.json`. If `admin.token` is
set, requests need it as a bearer token. Times are RFC 3339 in UTC. Fields are only ever added. What is not JSON is
described under [operate](../operate.md#console): the files of reports and rejections, and `/api/v1/events`.

"""


def api_page() -> str:
    """Return the page of the admin API, from its OpenAPI description."""
    described = document()
    parts = [API, "| request | parameters | |\n|---|---|---|\n"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            names = ", ".join(f"`{parameter['name']}`" for parameter in operation.get("parameters", ()))
            parts.append(f"| `{method.upper()} {path}` | {names} | {operation['summary']} |\n")
    for name, schema in described["components"]["schemas"].items():
        parts.append(f"\n## {name}\n\n| field | type | |\n|---|---|---|\n")
        parts += [f"| `{field}` | {type_} | {text} |\n" for field, type_, text in _fields(schema)]
    return "".join(parts)


def _fields(schema: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str, str]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{prefix}{name}", _type(field), _cell(field.get("description", ""))
        for one in (field, *field.get("anyOf", ())):
            yield from _fields(one, f"{prefix}{name}.")
            yield from _fields(one.get("items", {}), f"{prefix}{name}[].")


def _type(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one) for one in field["anyOf"]))
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    named = field.get("type", "any")
    if named == "array":
        return f"list of {_type(field['items'])}"
    return " or ".join(named) if isinstance(named, list) else str(named)


# -- metrics -----------------------------------------------------------------------------------------------------------

METRICS = f"""\
# Metrics

{MADE}
At `:8081/metrics`. What to do about each is described under [operate](../operate.md#metrics).

| metric | type | labels | |
|---|---|---|---|
"""


def metrics_page() -> str:
    """Return the page of metrics, from the registry."""
    rows = []
    for metric in Metrics()._registry._collector_to_names:  # noqa: SLF001 -- the library offers no labels otherwise
        name, kind, labels, text = (
            getattr(metric, f"_{field}") for field in ("name", "type", "labelnames", "documentation")
        )
        ending = "_total" if kind == "counter" else ""
        named = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}{ending}` | {kind} | {named} | {_cell(text)} |\n")
    return METRICS + "".join(sorted(rows))


# -- commands ----------------------------------------------------------------------------------------------------------

COMMANDS = f"""\
# Commands

{MADE}
`bridge COMMAND --help` prints the same. Commands that need settings read the file of `--config`, else of
`BRIDGE_CONFIG`, else `bridge.toml`. Commands that ask a running gateway take its address and token from
`BRIDGE_ADMIN_URL` and `BRIDGE_ADMIN_TOKEN`. Exit codes: 0 success, 1 failure, 2 wrong usage; those of `bridge upload`
are under [uploading](../upload.md).

"""


def commands_page() -> str:
    """Return the page of commands, from their definitions."""
    parts = [COMMANDS]
    group = typer.main.get_command(cli.app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # a group
        if name == "upload":
            parts += _upload()
            continue
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        shown = " ".join(["bridge", name, *(param.metavar or f"[{param.name.upper()}]" for param in arguments)])
        parts.append(f"\n## bridge {name}\n\n```text\n{shown}\n```\n\n{_prose(command.help or '')}\n")
        parts += _options(
            [
                ([param.metavar or param.name.upper()] if param in arguments else param.opts, param.help or "")
                for param in command.params
                if param.name != "help"
            ]
        )
    return "".join(parts)


def _upload() -> Iterable[str]:
    parser: ArgumentParser = upload_parser()
    yield f"\n## bridge upload\n\n```text\nbridge upload [PATTERN…]\n```\n\n{parser.description}\n\n{parser.epilog}\n"
    actions = [action for action in parser._actions if action.dest != "help"]  # noqa: SLF001 -- argparse has no other way
    yield from _options([(action.option_strings or ["PATTERN"], action.help or "") for action in actions])


def _options(options: list[tuple[list[str], str]]) -> Iterable[str]:
    if options:
        yield "\n| | |\n|---|---|\n"
    for names, text in options:
        yield f"| {', '.join(f'`{name}`' for name in names)} | {_cell(text)} |\n"


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))


def _cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").strip()


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "api.md": api_page,
    "metrics.md": metrics_page,
    "commands.md": commands_page,
}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, page in PAGES.items():
        (FOLDER / file).write_text(page(), encoding="utf-8")
