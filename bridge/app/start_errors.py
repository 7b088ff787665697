"""Errors of the operating system at the start, under the setting that caused them."""

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import SettingsError
from bridge.settings.caller_rules import is_loopback
from bridge.store.engine.path_errors import explain_path_error

FIRST_FREE_PORT = 1024  # lower ports need a privilege


@contextmanager
def blamed_on_path(key: str, path: Path) -> Iterator[None]:
    """Raise SettingsError about the setting `key`, which names `path`, instead of OSError."""
    try:
        yield
    except OSError as error:
        raise SettingsError([f"{key}: {explain_path_error(path, error)}"]) from error


@contextmanager
def blamed_on_listener(table: str, host: str, port: int) -> Iterator[None]:
    """Raise SettingsError about host or port of `[table]` instead of OSError."""
    try:
        yield
    except OSError as error:
        raise SettingsError([_listener_problem(table, host, port, error)]) from error


def require_reach(table: str, host: str, passed: Iterable[socket.socket]) -> None:
    """Raise SettingsError if others reach a socket of `[table]` that systemd passed, although `host` is on loopback.

    The rules for tokens and TLS go by the setting.
    """
    for listening in passed:
        address = listening.getsockname()[0]
        if is_loopback(host) and not is_loopback(address):
            remedy = f'Set {table}.host = "{address}", or ListenStream=127.0.0.1 with the port in the socket unit.'
            raise SettingsError([f"{table}.host: is {host}, but systemd passes a socket on {address}. {remedy}"])


def _listener_problem(table: str, host: str, port: int, error: OSError) -> str:
    if isinstance(error.__cause__, socket.gaierror | UnicodeError):
        reason = (error.strerror or "it is not a host name").lower()
        return f'{table}.host: "{host}" cannot be resolved ({reason}). Use an address such as "127.0.0.1".'
    match error.errno:
        case errno.EADDRINUSE:
            remedy = f"Stop that program (`ss -ltnp` lists it), or change {table}.port."
            return f"{table}.port: {port} on {host} is in use by another program. {remedy}"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            remedy = 'Use one that `ip address` lists, or "0.0.0.0" for all of them.'
            return f"{table}.host: {host} is not an address of this machine. {remedy}"
        case errno.EACCES | errno.EPERM if port < FIRST_FREE_PORT:
            remedy = f"Use a port from {FIRST_FREE_PORT} on, or grant CAP_NET_BIND_SERVICE."
            return f"{table}.port: {port} needs a privilege that this process lacks. {remedy}"
    reason = (error.strerror or type(error).__name__).rstrip(".")
    return f"{table}.host: cannot listen on {host}, port {port} ({reason}). Correct {table}.host and {table}.port."
