"""`bridge init`: write a settings file that `bridge check-config` accepts, from options and answers."""

import json
import os
import secrets
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeVar

import typer

from bridge.commands.console import print_result
from bridge.domain.callers import hash_token
from bridge.errors import BridgeError, SettingsError
from bridge.settings import load
from bridge.values import dataclass

ENDPOINT: Final = "https://cloudbuild-ext.{region}.myhuaweicloud.com"
TOKEN_SUFFIX: Final = ".ci-token"  # noqa: S105 -- of a file name
MAX_TOKEN_BYTES: Final = 256 * 1024
EXAMPLE: Final = "config.example.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class InitOptions:
    """The answers that options give; None is asked for."""

    route: str | None
    project_token_file: Path | None
    region: str | None
    codearts_token_file: str | None
    behind_tls_proxy: bool | None
    data: Path


def write_settings(path: Path, options: InitOptions) -> None:
    """Write settings, and a token for CI beside them; raise BridgeError if a file exists or they are invalid."""
    token_path = path.with_suffix(TOKEN_SUFFIX)
    for file in (path, token_path):
        _require_absent(file)
    token = secrets.token_urlsafe(32)
    text = _settings(options, hash_token(token))
    _write(path, text)
    try:
        load(path, os.environ)
        _write(token_path, f"{token}\n")
    except (SettingsError, OSError):
        path.unlink()
        raise
    print_result(
        f"Wrote {path}, and a token for CI to {token_path}. Set it as BRIDGE_TOKEN in CI, and delete the file."
    )
    print_result(f"Next: bridge check-config --online --config {path}")


def write_example(path: Path) -> None:
    """Write the example with every setting; raise BridgeError if the file exists."""
    _require_absent(path)
    _write(path, (files("bridge") / EXAMPLE).read_text(encoding="utf-8"))
    print_result(f"Wrote {path}: every setting with its default and its reason.")
    print_result(f"Next: set project_token in [[routes]], then run: bridge check-config --config {path}")


def _settings(options: InitOptions, token_hash: str) -> str:
    route = _answer("--route", options.route, "Name of the route, shown in pages and metrics", "default")
    project_token = (
        _ask_secret("--project-token-file", "Token of the TestNod project")
        if options.project_token_file is None
        else _read_token(options.project_token_file)
    )
    region = _answer("--region", options.region, "Region of CodeArts, such as cn-north-4 (empty: no polling)", "")
    codearts_token_file = ""
    if region:
        question = "File with an IAM token for CodeArts (empty: add credentials later)"
        codearts_token_file = _answer("--codearts-token-file", options.codearts_token_file, question, "")
    proxied = options.behind_tls_proxy
    if proxied is None:
        proxied = _confirm("Does CI reach the gateway through a proxy that terminates TLS (no: only this machine)")
    data = options.data.absolute()
    lines = [
        "# Written by `bridge init`. `bridge init --example` writes a file with every setting.",
        "[server]",
        "behind_tls_proxy = true" if proxied else 'host = "127.0.0.1"  # only this machine can connect',
        "",
        "[store]",
        f"url = {_quoted(f'sqlite:///{data}/bridge.db')}",
        f"spool = {_quoted(f'{data}/spool')}",
        "",
        *_codearts(region, codearts_token_file),
        "[[callers.tokens]]",
        'name = "ci"',
        f"hash = {_quoted(token_hash)}",
        'scopes = ["upload", "status"]',
        "",
        "[[routes]]",
        f"name = {_quoted(route)}",
        f"project_token = {_quoted(project_token)}",
    ]
    return "\n".join([*lines, ""])


def _codearts(region: str, token_file: str) -> list[str]:
    if not region:
        return []
    endpoint = f"endpoint = {_quoted(ENDPOINT.format(region=region))}"
    if not token_file:
        credentials = '#auth = "token"  # or "aksk", "password": see the example'
        return ["[codearts]", endpoint, credentials, '#token_file = ""', ""]
    return ["[codearts]", endpoint, 'auth = "token"', f"token_file = {_quoted(str(Path(token_file).absolute()))}", ""]


# -- answers -----------------------------------------------------------------------------------------------------


def _answer(option: str, given: str | None, question: str, default: str) -> str:
    if given is not None:
        return given.strip()
    return _asked(option, lambda: str(typer.prompt(question, default=default, err=True)), default).strip()


def _confirm(question: str) -> bool:
    return _asked("--behind-tls-proxy", lambda: typer.confirm(question, default=False, err=True), False)


def _ask_secret(option: str, question: str) -> str:
    def ask() -> str:
        return str(typer.prompt(question, hide_input=True, err=True)).strip()

    return _asked(option, ask, None)


_Answer = TypeVar("_Answer")


def _asked(option: str, ask: Callable[[], _Answer], default: _Answer | None) -> _Answer:
    """Return the answer of a person, or the default if there is no terminal; raise BridgeError if it has none."""
    if sys.stdin.isatty():
        return ask()
    if default is None:
        raise BridgeError(f"{option} is required, because there is no terminal to ask at. Name a file after it.")
    return default


def _read_token(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_TOKEN_BYTES + 1)
    try:
        token = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or len(content) > MAX_TOKEN_BYTES:
        raise BridgeError(f"{path} contains no token. Name the file that contains only the token.")
    return token


def _quoted(text: str) -> str:
    # A TOML basic string is a JSON string, except that JSON does not escape DEL.
    return json.dumps(text).replace("\x7f", "\\u007f")


def _require_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise BridgeError(f"{path} exists and is not overwritten. Move it away, or name another file with --config.")


def _write(path: Path, text: str) -> None:
    """Write a new file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
