"""Take the listening sockets that systemd passes to a service (sd_listen_fds(3)).

systemd keeps such a socket open while the service restarts: connections wait in its queue, and none is refused.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final

from bridge.errors import SettingsError

FIRST_DESCRIPTOR: Final = 3
LISTENERS: Final = ("server", "admin")
REMEDY: Final = "Set FileDescriptorName=server, or admin, in the socket unit, and ListenStream= with address and port."

PassedSockets = Mapping[str, list[socket.socket]]
"""Sockets by the listener that they are for, `server` or `admin`."""


def take_sockets(environ: MutableMapping[str, str]) -> PassedSockets:
    """Return the sockets that were passed to this process, and remove systemd's variables from `environ`.

    Raise SettingsError if one is no TCP socket that listens, or its name is not that of a listener.
    """
    pid, count, names = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    passed: dict[str, list[socket.socket]] = {}
    named = names.split(":") if names else []
    for index in range(int(count)):
        name = named[index] if index < len(named) else ""
        passed.setdefault(name, []).append(_take(FIRST_DESCRIPTOR + index, name))
    return passed


def _take(descriptor: int, name: str) -> socket.socket:
    os.set_inheritable(descriptor, False)
    with suppress(OSError):  # not a socket at all
        taken = socket.socket(fileno=descriptor)
        if name in LISTENERS and _listens(taken):
            taken.setblocking(False)
            return taken
        taken.close()
    raise SettingsError([f'The socket "{name}" that systemd passes cannot be used. {REMEDY}'])


def _listens(taken: socket.socket) -> bool:
    return (
        taken.family in {socket.AF_INET, socket.AF_INET6}
        and taken.type == socket.SOCK_STREAM
        and bool(taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )
