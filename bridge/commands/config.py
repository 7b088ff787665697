"""Settings for commands, `bridge check-config` and `bridge migrate`. Importing this does not import the gateway."""
# ruff: noqa: PLC0415 -- a gateway, which imports this too, does not print; checking needs no ledger

import asyncio
import json
import os
import sys
from pathlib import Path

from bridge.clock import SystemClock
from bridge.commands.console import highlight_key, print_note, print_result
from bridge.commands.online.findings import Finding, FindingState
from bridge.domain.callers import hash_token
from bridge.domain.text_format import counted
from bridge.errors import BridgeError
from bridge.settings import Settings, load, unused_variables, warnings

OTHERS = 0o007
"""Permissions of other users. Ledger and spool contain reports, and URLs that are still valid."""


def read_settings(path: Path) -> Settings:
    """Return the settings in the file and the environment of the process; raise SettingsError with every problem."""
    return load(path, os.environ)


def warnings_of(settings: Settings) -> list[str]:
    """Return the warnings about the settings, and about variables of the process that set nothing."""
    return [*unused_variables(settings, os.environ), *warnings(settings)]


def restrict_umask() -> None:
    """Deny other users access to all files that this process creates; permissions of the group do not change."""
    os.umask(os.umask(OTHERS) | OTHERS)


def check_config(path: Path, *, online: bool = False, json_wanted: bool = False) -> bool:
    """Print warnings, and one line that the settings are valid; raise SettingsError with every problem.

    With `online`, ask each configured upstream one question and print the answers; return whether none failed.
    """
    from bridge.commands.online.report import as_json, line_of, total_of

    settings = read_settings(path)
    sentences = warnings_of(settings)
    found = _ask_upstreams(settings) if online else []
    if json_wanted:
        asked = as_json(found) if online else None
        print(json.dumps({"valid": True, "warnings": sentences, "online": asked}, indent=2, ensure_ascii=False))  # noqa: T201
        return all(finding.state is not FindingState.FAILED for finding in found)
    for sentence in sentences:
        print_note(highlight_key(sentence, "yellow"))
    routes = ", ".join(route.name for route in settings.routes)
    noted = f"{counted(len(sentences), 'warning')} above" if sentences else "no warnings"
    print_result(f"{path} is valid: {counted(len(settings.routes), 'route')} ({routes}), {noted}.")
    for finding in found:
        print_result(line_of(finding))
    if online:
        print_result(total_of(found))
    return all(finding.state is not FindingState.FAILED for finding in found)


def _ask_upstreams(settings: Settings) -> list[Finding]:
    from bridge.commands.online.questions import ask_upstreams
    from bridge.commands.online.report import without_secrets

    return without_secrets(asyncio.run(ask_upstreams(settings, SystemClock())), settings)


def migrate_ledger(path: Path) -> None:
    """Create or migrate the ledger; raise LedgerError if it is in use or has a newer schema."""
    from bridge.store import ledger

    restrict_umask()
    name, revision = asyncio.run(ledger.migrate_ledger(read_settings(path).store.url, SystemClock()))
    print_result(f"The ledger {name} is at schema {revision}.")


MAX_TOKEN_BYTES = 256 * 1024  # IAM tokens are documented up to 100,000 characters; more is a wrong file


def print_hash() -> None:
    """Print `sha256:…` of the token that is typed, or piped in as one line."""
    token = _read()
    if not token:
        raise BridgeError("The token is empty. Type it, or pipe it in: bridge hash-token < file.")
    if not token.isprintable() or token != token.strip():
        raise BridgeError(
            "The token contains a line break, a control character or a space at either end. Copy it again."
        )
    print(hash_token(token))  # noqa: T201
    if sys.stdout.isatty():
        print_note("Set it as `hash` in [[callers.tokens]]. Give the token itself to the caller only.")


def _read() -> str:
    if sys.stdin.isatty():
        import typer

        return str(typer.prompt("Token", hide_input=True, err=True))
    content = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
    if len(content) > MAX_TOKEN_BYTES:
        raise BridgeError("The input is too large for a token. Pipe in the token only.")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BridgeError("The input is not text, so it cannot be a token. Pipe in the token only.") from None
