"""What holds for every test."""

import gc
import os
import traceback
from asyncio import constants
from itertools import islice

import pytest
from hypothesis import HealthCheck, settings

from tests.children import children_of, command_of
from tests.weed import Weed

READABLE = 24  # longer bytes say nothing as a test's name

# asyncio's debug mode notes the whole stack at which each future, task and handle is made, which is a good part of what
# tests with sockets cost. The nearest frames tell who made it.
TOLD_FRAMES = 3
constants.DEBUG_STACK_DEPTH = TOLD_FRAMES
_walk_stack = traceback.walk_stack
traceback.walk_stack = lambda frame: islice(_walk_stack(frame), TOLD_FRAMES)  # what futures go by, which are in C


# A deadline for an example is absolute timing: a busy machine must not fail a test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

FOREIGN = (
    "AWS_",
    "PG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "COLUMNS",
    "FORCE_COLOR",
    "BRIDGE_CONFIG",
)
"""What variables of this machine begin with that would change what programs under test do."""

for _name in list(os.environ):
    if _name.upper().startswith(FOREIGN) or (_name.startswith("BRIDGE_") and "__" in _name):
        del os.environ[_name]

HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
"""Processes that Python starts once and ends with this process."""


# What collecting makes stays until the end: to look through it for garbage again and again is in vain.
gc.disable()


def pytest_collection_finish():
    """Look for garbage among what the tests make, and there alone."""
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val):
    """Name packed bytes by their size: their content may hold the time, and workers must agree on names."""
    if isinstance(val, bytes) and len(val) > READABLE:
        return f"{len(val)}B"
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the tests that wait for minutes, in whatever order the others come."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left():
    """Fail if a process that a test started still runs when all tests of this worker have ended."""
    yield
    assert list(left_by(os.getpid())) == []


def left_by(pid):
    """Yield the command lines of what a process has started, without Python's own helpers, whose children count."""
    for child in children_of(pid):
        command = command_of(child)
        if any(helper in command for helper in HELPERS):
            yield from filter(None, map(command_of, children_of(child)))
        elif command:
            yield command


@pytest.fixture(scope="session")
def weed():
    """A real S3 server for all tests of this worker; each takes a prefix of its own."""
    with Weed() as weed:
        yield weed
