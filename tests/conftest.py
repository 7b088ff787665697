"""What holds for every test."""

import gc
import traceback
from asyncio import constants
from itertools import islice

import pytest

from tests.weed import Weed

READABLE = 24  # longer bytes say nothing as a test's name

# asyncio's debug mode notes the whole stack at which each future, task and handle is made, which is a good part of what
# tests with sockets cost. The nearest frames tell who made it.
TOLD_FRAMES = 3
constants.DEBUG_STACK_DEPTH = TOLD_FRAMES
_walk_stack = traceback.walk_stack
traceback.walk_stack = lambda frame: islice(_walk_stack(frame), TOLD_FRAMES)  # what futures go by, which are in C


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


@pytest.fixture(scope="session")
def weed():
    """A real S3 server for all tests of this worker; each takes a prefix of its own."""
    with Weed() as weed:
        yield weed
