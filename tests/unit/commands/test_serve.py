"""The event loop of a gateway."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from bridge.commands.serve import _new_event_loop


@pytest.fixture
def loops():
    opened = []
    yield opened
    for loop in opened:
        loop.close()


def settings(tls_cert_file=""):
    return SimpleNamespace(server=SimpleNamespace(tls_cert_file=tls_cert_file))


def test_a_gateway_runs_on_uvloop(loops):
    uvloop = pytest.importorskip("uvloop")
    loops.append(_new_event_loop(settings()))
    assert isinstance(loops[0], uvloop.Loop)


def test_a_listener_with_tls_needs_the_event_loop_of_the_standard_library(loops):
    loops.append(_new_event_loop(settings("cert.pem")))
    assert isinstance(loops[0], asyncio.SelectorEventLoop)


def test_without_uvloop_a_gateway_runs_on_the_event_loop_of_the_standard_library(loops, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)  # an import raises ImportError
    loops.append(_new_event_loop(settings()))
    assert isinstance(loops[0], asyncio.SelectorEventLoop)
