"""`bridge hash-token`: a caller's token in, its hash out, so that the settings need not hold the token.

It must not take the token from the command line, where every user of the machine can read it.
"""

import sys

import typer

from bridge.commands.console import remark
from bridge.domain.callers import hash_token
from bridge.errors import BridgeError

MAX_TOKEN_BYTES = 256 * 1024  # IAM tokens are documented up to 100,000 characters; more is a wrong file


def print_hash() -> None:
    """Print `sha256:…` of the token that is typed in, or piped in as one line."""
    typer.echo(hash_token(_checked(_read())))
    if sys.stdout.isatty():
        remark("Write it into [[callers.tokens]] as hash. Hand the token itself to the caller only.")


def _read() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True, err=True))
    content = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
    if len(content) > MAX_TOKEN_BYTES:
        raise BridgeError("This is too large to be a token. Pipe the token in alone.")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BridgeError("This is no text, so it cannot be a token. Pipe the token in alone.") from None


def _checked(token: str) -> str:
    if not token:
        raise BridgeError("The token is empty. Type it, or pipe it in: bridge hash-token < file.")
    if not token.isprintable() or token != token.strip():
        raise BridgeError(
            "The token holds a line break, a control character or a blank at an end. Copy it again, alone."
        )
    return token
