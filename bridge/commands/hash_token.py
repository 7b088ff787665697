"""`bridge hash-token`: the hash of a caller's token, so that the settings need not contain the token.

The token is not an argument, because other users of the machine can read arguments.
"""

import sys

import typer

from bridge.commands.console import print_note
from bridge.domain.callers import hash_token
from bridge.errors import BridgeError

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
    typer.echo(hash_token(token))
    if sys.stdout.isatty():
        print_note("Set it as `hash` in [[callers.tokens]]. Give the token itself to the caller only.")


def _read() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True, err=True))
    content = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
    if len(content) > MAX_TOKEN_BYTES:
        raise BridgeError("The input is too large for a token. Pipe in the token only.")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BridgeError("The input is not text, so it cannot be a token. Pipe in the token only.") from None
