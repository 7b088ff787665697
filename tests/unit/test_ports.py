"""What tests rely on when they name a port before a server listens on it."""

import socket
from contextlib import closing

import pytest

from tests.support.ports import REFUSED_URL, held_port


def test_a_held_port_refuses_connections_until_its_own_server_listens():
    with held_port() as port:
        for _ in range(2):  # and again after a server has ended
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            with closing(socket.create_server(("127.0.0.1", port))):
                socket.create_connection(("127.0.0.1", port)).close()


def test_a_held_port_is_given_to_no_other_program():
    with held_port() as port, closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


def test_the_refused_address_refuses():
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(REFUSED_URL.rpartition(":")[2])))
