"""Errors of a start: the setting, its value, what is in the way, and the remedy."""

import errno
import os
import socket
from pathlib import Path

import pytest

from bridge.app.start_errors import blamed_on_listener, blamed_on_path
from bridge.errors import SettingsError


def listener_problem(error: OSError, port: int = 8080) -> str:
    with pytest.raises(SettingsError) as rejected, blamed_on_listener("server", "10.9.9.9", port):
        raise error
    (problem,) = rejected.value.problems
    return problem


@pytest.mark.parametrize(
    ("number", "port", "problem"),
    [
        (
            errno.EADDRINUSE,
            8080,
            (
                "server.port: 8080 on 10.9.9.9 is in use by another program. "
                "Stop that program (`ss -ltnp` lists it), or change server.port."
            ),
        ),
        (
            errno.EADDRNOTAVAIL,
            8080,
            (
                "server.host: 10.9.9.9 is not an address of this machine. "
                'Use one that `ip address` lists, or "0.0.0.0" for all of them.'
            ),
        ),
        (
            errno.EACCES,
            443,
            (
                "server.port: 443 needs a privilege that this process lacks. "
                "Use a port from 1024 on, or grant CAP_NET_BIND_SERVICE."
            ),
        ),
        (
            errno.EACCES,
            8080,
            (
                "server.host: cannot listen on 10.9.9.9, port 8080 (Permission denied). "
                "Correct server.host and server.port."
            ),
        ),
    ],
)
def test_a_listener_that_cannot_start_names_host_or_port(number, port, problem):
    assert listener_problem(OSError(number, os.strerror(number)), port) == problem


def test_a_host_without_an_address_is_named():
    error = OSError(errno.EADDRNOTAVAIL, "Name or service not known", "10.9.9.9")
    error.__cause__ = socket.gaierror()
    assert listener_problem(error) == (
        'server.host: "10.9.9.9" cannot be resolved (name or service not known). Use an address such as "127.0.0.1".'
    )


def test_a_path_that_cannot_be_used_is_blamed_on_its_setting(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError) as rejected, blamed_on_path("store.spool", tmp_path / "file" / "spool"):
        (tmp_path / "file" / "spool").mkdir(parents=True)
    assert rejected.value.problems == [
        f"store.spool: {tmp_path}/file is a file, not a folder. Move it away, or use another path."
    ]
